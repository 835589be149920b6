/**
 * IPv4 addresses, routes and neighbours of the kernel's own stack (rtnetlink(7)). Synchronous, in the network
 * namespace of the calling thread. Addresses are uint32 in host order, on the wire they are big-endian.
 */
import { formatIpv4, type Ipv4, type Mac, netmask } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { AF_INET } from '../socket.ts';
import {
  getU32,
  getU32BE,
  MessageWriter,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  parseAttributes,
} from './codec.ts';
import { changeLink, macBytes, macFromBytes, nameOf } from './link.ts';
import * as rt from './rtnetlink.ts';
import { withNetlink } from './socket.ts';

export interface InterfaceAddress {
  index: number;
  address: Ipv4;
  prefix: number;
}

export interface Route {
  dst: Ipv4;
  /** 0 for the default route. */
  prefix: number;
  /** Null when the destination is on the link itself. */
  gateway: Ipv4 | null;
  index: number;
}

export interface Neighbour {
  index: number;
  address: Ipv4;
  mac: Mac;
  /** NUD_ bits of linux/neighbour.h: 0x02 reachable, 0x04 stale, 0x80 permanent. */
  state: number;
}

function ipv4Bytes(address: Ipv4): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(address);
  return bytes;
}

function checkPrefix(prefix: number): void {
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > 32) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${prefix} is not a prefix length`, {
      hint: 'use 0 to 32',
    });
  }
}

function addressMessage(index: number, address: Ipv4, prefix: number): MessageWriter {
  checkPrefix(prefix);
  const header = Buffer.alloc(rt.IFADDRMSG_LEN);
  header[0] = AF_INET;
  header[1] = prefix;
  header.writeUInt32LE(index, 4);
  const bytes = ipv4Bytes(address);
  return new MessageWriter()
    .raw(header)
    .attribute(rt.IFA_LOCAL, bytes)
    .attribute(rt.IFA_ADDRESS, bytes);
}

/** Give the interface an address. One that it already has is a SystemError EEXIST. */
export function addAddress(index: number, address: Ipv4, prefix: number): void {
  const writer = addressMessage(index, address, prefix);
  if (prefix < 31) {
    const broadcast = (address | ~netmask(prefix)) >>> 0;
    writer.attribute(rt.IFA_BROADCAST, ipv4Bytes(broadcast));
  }
  const args = [nameOf(index), `${formatIpv4(address)}/${prefix}`];
  changeLink(index, 'RTM_NEWADDR', args, (socket, subject) => {
    socket.request(rt.RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, writer.body(), subject);
  });
}

/** Take an address away. One that it does not have is a SystemError EADDRNOTAVAIL. */
export function removeAddress(index: number, address: Ipv4, prefix: number): void {
  const body = addressMessage(index, address, prefix).body();
  const args = [nameOf(index), `${formatIpv4(address)}/${prefix}`];
  changeLink(index, 'RTM_DELADDR', args, (socket, subject) => {
    socket.request(rt.RTM_DELADDR, 0, body, subject);
  });
}

/** The IPv4 addresses of all interfaces. */
export function listAddresses(): InterfaceAddress[] {
  const header = Buffer.alloc(rt.IFADDRMSG_LEN);
  header[0] = AF_INET;
  const addresses: InterfaceAddress[] = [];
  const subject = { operation: 'RTM_GETADDR', args: [] };
  for (const { body } of withNetlink((s) => s.dump(rt.RTM_GETADDR, header, subject))) {
    if (body.length < rt.IFADDRMSG_LEN || body[0] !== AF_INET) continue;
    const attributes = parseAttributes(body, rt.IFADDRMSG_LEN);
    // On a point-to-point link IFA_ADDRESS is the other end's address.
    const address = getU32BE(attributes, rt.IFA_LOCAL) ?? getU32BE(attributes, rt.IFA_ADDRESS);
    if (address === null) continue;
    addresses.push({ index: body.readUInt32LE(4), address, prefix: body[1]! });
  }
  return addresses;
}

/** Send `dst/prefix` (0/0: everything else) out of an interface, through `gateway` if there is one. */
export function addRoute(dst: Ipv4, prefix: number, via: { gateway?: Ipv4; index: number }): void {
  checkPrefix(prefix);
  const header = Buffer.alloc(rt.RTMSG_LEN);
  header[0] = AF_INET;
  header[1] = prefix;
  header[4] = rt.RT_TABLE_MAIN;
  header[5] = rt.RTPROT_STATIC;
  header[6] = via.gateway === undefined ? rt.RT_SCOPE_LINK : rt.RT_SCOPE_UNIVERSE;
  header[7] = rt.RTN_UNICAST;
  const writer = new MessageWriter().raw(header).u32(rt.RTA_OIF, via.index);
  if (prefix > 0) writer.attribute(rt.RTA_DST, ipv4Bytes(dst));
  const args = [`${formatIpv4(dst)}/${prefix}`, nameOf(via.index)];
  if (via.gateway !== undefined) {
    writer.attribute(rt.RTA_GATEWAY, ipv4Bytes(via.gateway));
    args.push(formatIpv4(via.gateway));
  }
  changeLink(via.index, 'RTM_NEWROUTE', args, (socket, subject) => {
    socket.request(rt.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, writer.body(), subject);
  });
}

/** The unicast routes of the main table that leave through one interface. */
export function listRoutes(): Route[] {
  const header = Buffer.alloc(rt.RTMSG_LEN);
  header[0] = AF_INET;
  const routes: Route[] = [];
  const subject = { operation: 'RTM_GETROUTE', args: [] };
  for (const { body } of withNetlink((s) => s.dump(rt.RTM_GETROUTE, header, subject))) {
    if (body.length < rt.RTMSG_LEN || body[0] !== AF_INET) continue;
    if (body[4] !== rt.RT_TABLE_MAIN || body[7] !== rt.RTN_UNICAST) continue;
    const attributes = parseAttributes(body, rt.RTMSG_LEN);
    const index = getU32(attributes, rt.RTA_OIF);
    if (index === null) continue;
    routes.push({
      dst: getU32BE(attributes, rt.RTA_DST) ?? 0,
      prefix: body[1]!,
      gateway: getU32BE(attributes, rt.RTA_GATEWAY),
      index,
    });
  }
  return routes;
}

/** The IPv4 neighbours (ARP entries) whose MAC address the kernel knows. */
export function listNeighbours(): Neighbour[] {
  const header = Buffer.alloc(rt.NDMSG_LEN);
  header[0] = AF_INET;
  const neighbours: Neighbour[] = [];
  const subject = { operation: 'RTM_GETNEIGH', args: [] };
  for (const { body } of withNetlink((s) => s.dump(rt.RTM_GETNEIGH, header, subject))) {
    if (body.length < rt.NDMSG_LEN || body[0] !== AF_INET) continue;
    const attributes = parseAttributes(body, rt.NDMSG_LEN);
    const address = getU32BE(attributes, rt.NDA_DST);
    const mac = attributes.get(rt.NDA_LLADDR);
    if (address === null || mac === undefined) continue;
    const index = body.readInt32LE(4);
    neighbours.push({ index, address, mac: macFromBytes(mac), state: body.readUInt16LE(8) });
  }
  return neighbours;
}

/** Pin the MAC address of a neighbour: permanent, replacing what was there. */
export function setNeighbour(index: number, address: Ipv4, mac: Mac): void {
  const header = Buffer.alloc(rt.NDMSG_LEN);
  header[0] = AF_INET;
  header.writeInt32LE(index, 4);
  header.writeUInt16LE(rt.NUD_PERMANENT, 8);
  const body = new MessageWriter()
    .raw(header)
    .attribute(rt.NDA_DST, ipv4Bytes(address))
    .attribute(rt.NDA_LLADDR, macBytes(mac))
    .body();
  const args = [nameOf(index), formatIpv4(address)];
  changeLink(index, 'RTM_NEWNEIGH', args, (socket, subject) => {
    socket.request(rt.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, subject);
  });
}

/**
 * Have the kernel find out, or confirm, the MAC address of a neighbour, as if it had a packet for it. What it learns shows in
 * `listNeighbours`, and to those who watch RTMGRP_NEIGH.
 */
export function resolveNeighbour(index: number, address: Ipv4): void {
  const header = Buffer.alloc(rt.NDMSG_LEN);
  header[0] = AF_INET;
  header.writeInt32LE(index, 4);
  header[10] = rt.NTF_USE;
  const body = new MessageWriter().raw(header).attribute(rt.NDA_DST, ipv4Bytes(address)).body();
  const args = [nameOf(index), formatIpv4(address), 'use'];
  changeLink(index, 'RTM_NEWNEIGH', args, (socket, subject) => {
    socket.request(rt.RTM_NEWNEIGH, NLM_F_CREATE, body, subject);
  });
}
