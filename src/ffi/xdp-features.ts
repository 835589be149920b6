/**
 * What a driver can do with XDP, as the kernel says it: generic netlink family "netdev"
 * (Documentation/netlink/specs/netdev.yaml), Linux 6.3 and later.
 */
import { isErrno } from '../base/errors.ts';
import { MessageWriter, parseAttributes } from './netlink/codec.ts';
import { NetlinkSocket } from './netlink/socket.ts';

const NETLINK_GENERIC = 16;
const GENL_HEADER_LEN = 4;
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const NETDEV_CMD_DEV_GET = 1;
const NETDEV_A_DEV_IFINDEX = 1;
const NETDEV_A_DEV_XDP_FEATURES = 3;

/** Bits of netdev.yaml's xdp-act. */
const XDP_ACT_BASIC = 1;
const XDP_ACT_NDO_XMIT = 4;
const XDP_ACT_XSK_ZEROCOPY = 8;

export interface XdpFeatures {
  /** Programs run in the driver. */
  native: boolean;
  /** Frames may be redirected to it from another interface's native program. */
  redirectTarget: boolean;
  zeroCopy: boolean;
}

/** Features of an interface now (a veth's change with its peer); null when this kernel cannot tell. */
export function xdpFeatures(ifIndex: number): XdpFeatures | null {
  const socket = new NetlinkSocket(0, NETLINK_GENERIC);
  try {
    const name = new MessageWriter().raw(Buffer.from([CTRL_CMD_GETFAMILY, 1, 0, 0]));
    name.string(CTRL_ATTR_FAMILY_NAME, 'netdev');
    const family = ask(socket, GENL_ID_CTRL, name, CTRL_ATTR_FAMILY_ID)?.readUInt16LE(0);
    if (family === undefined) return null;
    const device = new MessageWriter().raw(Buffer.from([NETDEV_CMD_DEV_GET, 1, 0, 0]));
    device.u32(NETDEV_A_DEV_IFINDEX, ifIndex);
    const bits = ask(socket, family, device, NETDEV_A_DEV_XDP_FEATURES)?.readUInt32LE(0);
    if (bits === undefined) return null;
    return {
      native: (bits & XDP_ACT_BASIC) !== 0,
      redirectTarget: (bits & XDP_ACT_NDO_XMIT) !== 0,
      zeroCopy: (bits & XDP_ACT_XSK_ZEROCOPY) !== 0,
    };
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EOPNOTSUPP')) return null;
    throw error;
  } finally {
    socket.close();
  }
}

function ask(
  socket: NetlinkSocket,
  family: number,
  body: MessageWriter,
  attribute: number,
): Buffer | undefined {
  const subject = { operation: 'generic netlink', args: ['netdev', family] };
  const [reply] = socket.request(family, 0, body.body(), subject);
  return reply === undefined
    ? undefined
    : parseAttributes(reply.body, GENL_HEADER_LEN).get(attribute);
}
