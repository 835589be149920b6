/**
 * Network interfaces: list, make, change, remove (rtnetlink(7), RTM_*LINK). All calls are synchronous and act
 * in the network namespace of the calling thread. An interface that is not there is ARK_NOT_FOUND, with the
 * names of those that are; any other refusal is a SystemError with the kernel's own words as its hint.
 */
import type { Mac } from '../../base/address.ts';
import { macHi, macLo } from '../../base/address.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { checkInterfaceName } from '../ioctl.ts';
import {
  getNested,
  getString,
  getU32,
  type Message,
  MessageWriter,
  NLM_F_CREATE,
  NLM_F_EXCL,
  parseAttributes,
} from './codec.ts';
import * as rt from './rtnetlink.ts';
import { type NetlinkSocket, type Subject, withNetlink } from './socket.ts';

export interface Link {
  index: number;
  name: string;
  /** 0 for an interface without an Ethernet address. */
  mac: Mac;
  mtu: number;
  /** Administratively up. */
  up: boolean;
  /** Up and with carrier: for a veth, that its peer is up as well. */
  running: boolean;
  /** 'veth', 'tun', 'bridge', ...; null for a physical interface and the loopback. */
  kind: string | null;
  /** Index of a veth's peer or of a VLAN's lower device, in that one's namespace; null when there is none. */
  peerIndex: number | null;
  /** True when `peerIndex` counts in another network namespace. */
  peerIsForeign: boolean;
  alias: string | null;
  /** Id of the XDP program at the interface, whatever its mode. */
  xdpProgId: number | null;
  numRxQueues: number;
  numTxQueues: number;
}

/** One end of a new veth pair. */
export interface VethEnd {
  name: string;
  mac?: Mac;
  mtu?: number;
  /** At most 255 bytes. */
  alias?: string;
  /** Receive and transmit queues to create; one when absent. */
  queues?: number;
}

/** The six bytes of `mac` as they are sent. */
export function macBytes(mac: Mac): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt16BE(macHi(mac), 0);
  bytes.writeUInt32BE(macLo(mac), 2);
  return bytes;
}

/** The MAC address in `bytes`, or 0 when it is not one. */
export function macFromBytes(bytes: Buffer | undefined): Mac {
  return bytes === undefined || bytes.length !== 6 ? 0 : bytes.readUIntBE(0, 6);
}

function ifinfomsg(index: number, flags = 0, change = 0): Buffer {
  const header = Buffer.alloc(rt.IFINFOMSG_LEN);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

/** The interface that an RTM_NEWLINK or RTM_DELLINK message describes; null when it is another family's view. */
export function parseLink(message: Message): Link | null {
  const { body } = message;
  if (body.length < rt.IFINFOMSG_LEN || body[0] !== 0) return null;
  const attributes = parseAttributes(body, rt.IFINFOMSG_LEN);
  const name = getString(attributes, rt.IFLA_IFNAME);
  if (name === null) return null;
  const flags = body.readUInt32LE(8);
  const xdp = getNested(attributes, rt.IFLA_XDP);
  return {
    index: body.readInt32LE(4),
    name,
    mac: macFromBytes(attributes.get(rt.IFLA_ADDRESS)),
    mtu: getU32(attributes, rt.IFLA_MTU) ?? 0,
    up: (flags & rt.IFF_UP) !== 0,
    running: (flags & rt.IFF_RUNNING) !== 0,
    kind: getString(getNested(attributes, rt.IFLA_LINKINFO), rt.IFLA_INFO_KIND),
    peerIndex: getU32(attributes, rt.IFLA_LINK),
    peerIsForeign: attributes.has(rt.IFLA_LINK_NETNSID),
    alias: getString(attributes, rt.IFLA_IFALIAS),
    xdpProgId: xdpProgramId(xdp),
    numRxQueues: getU32(attributes, rt.IFLA_NUM_RX_QUEUES) ?? 1,
    numTxQueues: getU32(attributes, rt.IFLA_NUM_TX_QUEUES) ?? 1,
  };
}

/** IFLA_XDP_PROG_ID is left out when programs of several modes are attached; their ids follow it (SKB, DRV, HW). */
function xdpProgramId(xdp: Map<number, Buffer>): number | null {
  for (let mode = 0; mode <= 3; mode++) {
    const id = getU32(xdp, rt.IFLA_XDP_PROG_ID + mode);
    if (id !== null && id !== 0) return id;
  }
  return null;
}

/** All interfaces, in order of their index; of `socket`'s namespace when one is given. */
export function listLinks(socket?: NetlinkSocket): Link[] {
  if (socket === undefined) return withNetlink(listLinks);
  const body = new MessageWriter()
    .raw(ifinfomsg(0))
    .u32(rt.IFLA_EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS)
    .body();
  const links: Link[] = [];
  for (const message of socket.dump(rt.RTM_GETLINK, body, { operation: 'RTM_GETLINK', args: [] })) {
    const link = parseLink(message);
    if (link !== null) links.push(link);
  }
  return links.sort((a, b) => a.index - b.index);
}

function getLink(index: number, name: string | null): Link | null {
  const writer = new MessageWriter().raw(ifinfomsg(index));
  if (name !== null) writer.string(rt.IFLA_IFNAME, name);
  writer.u32(rt.IFLA_EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS);
  const subject = { operation: 'RTM_GETLINK', args: [name ?? index] };
  try {
    const replies = withNetlink((s) => s.request(rt.RTM_GETLINK, 0, writer.body(), subject));
    return replies.length === 0 ? null : parseLink(replies[0]!);
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return null;
    throw error;
  }
}

/** The interface called `name`, or null. */
export const linkByName = (name: string): Link | null => getLink(0, checkInterfaceName(name));

/** The interface with this index, or null. */
export const linkByIndex = (index: number): Link | null =>
  index > 0 ? getLink(index, null) : null;

/** The interface called `name` or with that index; ARK_NOT_FOUND lists those that exist. */
export function requireLink(which: string | number): Link {
  const link = typeof which === 'string' ? linkByName(which) : linkByIndex(which);
  if (link === null) throw missingLink(which);
  return link;
}

/** The error for an interface that does not exist. */
export function missingLink(which: string | number): ArrakisError {
  const names = listLinks().map((link) => link.name);
  const what = typeof which === 'string' ? `"${which}"` : `with index ${which}`;
  return new ArrakisError('ARK_NOT_FOUND', `there is no network interface ${what}`, {
    hint: `interfaces here: ${names.join(', ')}`,
  });
}

/** Run a request about the interface `which`, spelling ENODEV as ARK_NOT_FOUND. */
export function changeLink(
  which: string | number,
  operation: string,
  args: Subject['args'],
  run: (socket: NetlinkSocket, subject: Subject) => void,
): void {
  try {
    withNetlink((socket) => run(socket, { operation, args }));
  } catch (error) {
    if (isErrno(error, 'ENODEV')) throw missingLink(which);
    throw error;
  }
}

function setLink(index: number, writer: MessageWriter, ...args: Subject['args']): void {
  changeLink(index, 'RTM_SETLINK', [nameOf(index), ...args], (socket, subject) => {
    socket.request(rt.RTM_SETLINK, 0, writer.body(), subject);
  });
}

/** For messages only: the name when there is one. */
export const nameOf = (index: number): string => linkByIndex(index)?.name ?? `index ${index}`;

/**
 * Make a veth pair, both ends in this namespace and down. Indices of `a` and `b`. EEXIST is ARK_IN_USE;
 * nothing is left behind on failure.
 */
export function createVethPair(a: VethEnd, b: VethEnd): { a: number; b: number } {
  const writer = new MessageWriter().raw(ifinfomsg(0));
  writeVethEnd(writer, a);
  writer.nest(rt.IFLA_LINKINFO, (info) => {
    info.string(rt.IFLA_INFO_KIND, 'veth').nest(rt.IFLA_INFO_DATA, (data) => {
      data.nest(rt.VETH_INFO_PEER, (peer) => writeVethEnd(peer.raw(ifinfomsg(0)), b));
    });
  });
  const subject = { operation: 'RTM_NEWLINK', args: ['veth', a.name, b.name] };
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  try {
    withNetlink((socket) => socket.request(rt.RTM_NEWLINK, flags, writer.body(), subject));
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
    const taken = linkByName(a.name) === null ? b.name : a.name;
    const text = `cannot make the veth pair ${a.name}, ${b.name}: ${taken} exists`;
    const hint = `choose another name, or remove it: ip link delete ${taken}`;
    throw new ArrakisError('ARK_IN_USE', text, { hint, cause: error });
  }
  try {
    const indices = { a: requireLink(a.name).index, b: requireLink(b.name).index };
    if (a.alias !== undefined) setAlias(indices.a, a.alias);
    if (b.alias !== undefined) setAlias(indices.b, b.alias);
    return indices;
  } catch (error) {
    deleteLink(a.name);
    throw error;
  }
}

function writeVethEnd(writer: MessageWriter, end: VethEnd): void {
  writer.string(rt.IFLA_IFNAME, checkInterfaceName(end.name));
  if (end.mac !== undefined) writer.attribute(rt.IFLA_ADDRESS, macBytes(end.mac));
  if (end.mtu !== undefined) writer.u32(rt.IFLA_MTU, end.mtu);
  if (end.queues !== undefined) {
    writer.u32(rt.IFLA_NUM_TX_QUEUES, end.queues).u32(rt.IFLA_NUM_RX_QUEUES, end.queues);
  }
}

/** Remove an interface; a veth takes its peer along. */
export function deleteLink(which: string | number): void {
  const writer = new MessageWriter().raw(ifinfomsg(typeof which === 'number' ? which : 0));
  if (typeof which === 'string') writer.string(rt.IFLA_IFNAME, checkInterfaceName(which));
  changeLink(which, 'RTM_DELLINK', [which], (socket, subject) => {
    socket.request(rt.RTM_DELLINK, 0, writer.body(), subject);
  });
}

export function setLinkUp(index: number): void {
  setLink(index, new MessageWriter().raw(ifinfomsg(index, rt.IFF_UP, rt.IFF_UP)), 'up');
}

export function setLinkDown(index: number): void {
  setLink(index, new MessageWriter().raw(ifinfomsg(index, 0, rt.IFF_UP)), 'down');
}

export function setMac(index: number, mac: Mac): void {
  const writer = new MessageWriter().raw(ifinfomsg(index));
  setLink(index, writer.attribute(rt.IFLA_ADDRESS, macBytes(mac)), 'mac');
}

/** `mtu` in bytes of layer 3. */
export function setMtu(index: number, mtu: number): void {
  setLink(index, new MessageWriter().raw(ifinfomsg(index)).u32(rt.IFLA_MTU, mtu), 'mtu', mtu);
}

/** Text of at most 255 bytes that stays with the interface; an empty one removes it. */
export function setAlias(index: number, alias: string): void {
  const bytes = Buffer.from(alias);
  if (bytes.length >= rt.IFALIASZ || bytes.includes(0)) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${alias}" is not usable as an interface alias`, {
      hint: `use at most ${rt.IFALIASZ - 1} bytes`,
    });
  }
  const writer = new MessageWriter().raw(ifinfomsg(index)).attribute(rt.IFLA_IFALIAS, bytes);
  setLink(index, writer, 'alias', alias);
}

/** Move an interface to the network namespace of process `pid`. It arrives down and without addresses. */
export function moveToNamespaceOfPid(index: number, pid: number): void {
  const writer = new MessageWriter().raw(ifinfomsg(index)).u32(rt.IFLA_NET_NS_PID, pid);
  setLink(index, writer, 'netns of', pid);
}

/** Move a link into the network namespace that the descriptor `fd` refers to. It loses its addresses. */
export function moveToNamespace(index: number, fd: number): void {
  const writer = new MessageWriter().raw(ifinfomsg(index)).u32(rt.IFLA_NET_NS_FD, fd);
  setLink(index, writer, 'netns', fd);
}
