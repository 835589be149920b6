/**
 * How an interface's NAPI defers its work: generic netlink family "netdev", operations napi-get and napi-set
 * (Documentation/netlink/specs/netdev.yaml, Documentation/networking/napi.rst), Linux 6.13 and later. Unlike the files
 * in sysfs they act in the network namespace of the calling thread, whatever is mounted there.
 */
import { ArrakisError, isErrno } from '../base/errors.ts';
import { getU32, MessageWriter, parseAttributes } from './netlink/codec.ts';
import { NetlinkSocket } from './netlink/socket.ts';

const NETLINK_GENERIC = 16;
const GENL_HEADER_LEN = 4;
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const NETDEV_CMD_NAPI_GET = 11;
const NETDEV_CMD_NAPI_SET = 14;
const NETDEV_A_NAPI_IFINDEX = 1;
const NETDEV_A_NAPI_ID = 2;
const NETDEV_A_NAPI_DEFER_HARD_IRQS = 5;
const NETDEV_A_NAPI_GRO_FLUSH_TIMEOUT = 6;
const NS_PER_US = 1000;

export interface NapiDeferral {
  /** Empty polls that are deferred before NAPI hears of new frames at once again; 0: none. */
  readonly deferHardIrqs: number;
  /** Time from one poll to the next while it is deferred. */
  readonly flushTimeoutUs: number;
}

const header = (command: number): MessageWriter =>
  new MessageWriter().raw(Buffer.from([command, 1, 0, 0]));

function withFamily<T>(ifIndex: number, use: (socket: NetlinkSocket, family: number) => T): T {
  const socket = new NetlinkSocket(0, NETLINK_GENERIC);
  try {
    const request = header(CTRL_CMD_GETFAMILY).string(CTRL_ATTR_FAMILY_NAME, 'netdev').body();
    const [reply] = socket.request(GENL_ID_CTRL, 0, request, subject('netdev'));
    const attributes = parseAttributes(reply!.body, GENL_HEADER_LEN);
    return use(socket, attributes.get(CTRL_ATTR_FAMILY_ID)!.readUInt16LE(0));
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EOPNOTSUPP', 'EINVAL')) throw error;
    const text = `this kernel does not defer interrupts of interface ${ifIndex} alone`;
    throw new ArrakisError('ARK_UNSUPPORTED', text, { hint: 'Linux 6.13 does', cause: error });
  } finally {
    socket.close();
  }
}

const subject = (...args: (string | number)[]) => ({ operation: 'generic netlink', args });

function napis(socket: NetlinkSocket, family: number, ifIndex: number) {
  const request = header(NETDEV_CMD_NAPI_GET).u32(NETDEV_A_NAPI_IFINDEX, ifIndex).body();
  return socket
    .dump(family, request, subject('napi-get', ifIndex))
    .map((message) => parseAttributes(message.body, GENL_HEADER_LEN));
}

/** Set it for every NAPI that the interface has now. ARK_UNSUPPORTED when the kernel has no way to. */
export function setNapiDeferral(ifIndex: number, deferral: NapiDeferral): void {
  const { deferHardIrqs, flushTimeoutUs } = deferral;
  withFamily(ifIndex, (socket, family) => {
    for (const attributes of napis(socket, family, ifIndex)) {
      const request = header(NETDEV_CMD_NAPI_SET)
        .u32(NETDEV_A_NAPI_ID, getU32(attributes, NETDEV_A_NAPI_ID)!)
        .u32(NETDEV_A_NAPI_DEFER_HARD_IRQS, deferHardIrqs)
        .u32(NETDEV_A_NAPI_GRO_FLUSH_TIMEOUT, flushTimeoutUs * NS_PER_US);
      socket.request(family, 0, request.body(), subject('napi-set', ifIndex));
    }
  });
}

/** What is set, of each NAPI of the interface. */
export function napiDeferrals(ifIndex: number): NapiDeferral[] {
  return withFamily(ifIndex, (socket, family) =>
    napis(socket, family, ifIndex).map((attributes) => ({
      deferHardIrqs: getU32(attributes, NETDEV_A_NAPI_DEFER_HARD_IRQS) ?? 0,
      flushTimeoutUs: (getU32(attributes, NETDEV_A_NAPI_GRO_FLUSH_TIMEOUT) ?? 0) / NS_PER_US,
    })),
  );
}
