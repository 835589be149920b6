/** What a VNIC may not send, and the reason for which the device drops it. */
import { formatIpv6, MAC_BROADCAST, macHi, macLo, parseIpv4 } from '../../src/base/address.ts';
import { setEui64 } from '../../src/base/ipv6.ts';
import type { DropReason } from '../../src/device/drops.ts';
import * as arp from '../../src/wire/arp.ts';
import {
  arpFrame,
  echoFrame,
  ipv4Frame,
  udpFrame,
  viewOfBytes,
  withOptions,
} from '../support/frames.ts';
import {
  ALL_NODES6,
  advertisement,
  echo6Frame,
  fragments6,
  type Host6,
  routerAdvertisement,
  withExtensions,
} from '../support/frames6.ts';

export interface Party {
  readonly mac: number;
  readonly ip: number;
}

export type Lie = readonly [what: string, reason: DropReason, bytes: Uint8Array];

const STRANGER = 0x02_66_66_66_66_66;
/** Inside the range of ports that a narrow VNIC has, and outside. */
export const NARROW_PORTS = [1000, 1009] as const;
const PORT = 1000;
const WRONG_PORT = 1010;
const NO_OPS = Buffer.alloc(40, 1);
const body = Buffer.alloc(24, 'x');

function poke(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  bytes.set(values, at);
  return bytes;
}

/** ARP of `op` by `from` with other hardware or protocol addresses inside. */
function arpWith(op: number, from: Party, target: Party, sender: Party): Uint8Array {
  const bytes = arpFrame(op, from, target);
  arp.setSender(viewOfBytes(bytes), 14, macHi(sender.mac), macLo(sender.mac) | 0, sender.ip | 0);
  return bytes;
}

/** `bytes` with `tag` (TPID) and a VLAN id behind the MAC addresses. */
const tagged = (bytes: Uint8Array, tag: number): Uint8Array =>
  Buffer.concat([
    bytes.subarray(0, 12),
    Buffer.from([tag >>> 8, tag & 255, 0, 7]),
    bytes.subarray(12),
  ]);

/** By a VNIC with the whole of its address. */
export function wholeLies(me: Party, neighbour: Party, elsewhere: Party): Lie[] {
  const udp = (from: Party, to: Party = elsewhere): Uint8Array =>
    udpFrame({ ...from, port: PORT }, { ...to, port: PORT }, body);
  const as = (ip: string): Uint8Array => udp({ mac: me.mac, ip: parseIpv4(ip) });
  const theirs = { mac: me.mac, ip: neighbour.ip };
  const strange = { mac: STRANGER, ip: me.ip };
  const { OP_REPLY, OP_REQUEST } = arp;
  return [
    ['a MAC that nobody has', 'spoofedMac', udp(strange)],
    ['the broadcast MAC', 'spoofedMac', udp({ mac: MAC_BROADCAST, ip: me.ip })],
    ['MAC and address that nobody has', 'spoofedMac', udp({ mac: STRANGER, ip: neighbour.ip })],
    ["the neighbour's address", 'spoofedAddress', udp(theirs)],
    ["the neighbour's address, to the neighbour", 'spoofedAddress', udp(theirs, neighbour)],
    ["a ping by the neighbour's address", 'spoofedAddress', echoFrame(theirs, elsewhere, body)],
    ['no address', 'spoofedAddress', as('0.0.0.0')],
    ['the address of everybody', 'spoofedAddress', as('255.255.255.255')],
    ['the loopback address', 'spoofedAddress', as('127.0.0.1')],
    ['a multicast address', 'spoofedAddress', as('224.0.0.1')],
    [
      "the neighbour's address behind IP options",
      'spoofedAddress',
      withOptions(udp(theirs), NO_OPS),
    ],
    [
      "the neighbour's address in a later fragment",
      'spoofedAddress',
      poke(udp(theirs), 20, 0x00, 0x10),
    ],
    [
      "an ARP request by the neighbour's address",
      'spoofedArp',
      arpFrame(OP_REQUEST, theirs, elsewhere),
    ],
    [
      "gratuitous ARP for the neighbour's address",
      'spoofedArp',
      arpFrame(OP_REQUEST, theirs, theirs),
    ],
    [
      "an ARP reply for the neighbour's address",
      'spoofedArp',
      arpFrame(OP_REPLY, theirs, elsewhere),
    ],
    [
      'an ARP reply to everybody with another MAC inside',
      'spoofedArp',
      arpWith(OP_REPLY, me, elsewhere, strange),
    ],
    [
      'an ARP probe, by no address',
      'spoofedArp',
      arpWith(OP_REQUEST, me, neighbour, { mac: me.mac, ip: 0 }),
    ],
    ['a VLAN tag', 'otherProtocol', tagged(udp(me), 0x8100)],
    ['a service tag', 'otherProtocol', tagged(udp(me), 0x88a8)],
    ["a VLAN tag before the neighbour's address", 'otherProtocol', tagged(udp(theirs), 0x8100)],
    ['MPLS', 'otherProtocol', poke(udp(me), 12, 0x88, 0x47)],
    ['a length in place of a type (802.3)', 'otherProtocol', poke(udp(me), 12, 0, 40)],
    ['half an IPv4 header', 'truncated', udp(me).slice(0, 30)],
    ['a header of 4 words', 'truncated', poke(udp(me), 14, 0x44)],
    ['a header past the end', 'truncated', poke(udp(me).slice(0, 44), 14, 0x4f)],
    ['a length past the end', 'truncated', poke(udp(me), 16, 0x05, 0x00)],
    ['half an ARP', 'truncated', arpFrame(OP_REQUEST, me, elsewhere).slice(0, 40)],
  ];
}

/** By a VNIC with a whole address, which has IPv6, too, under its MAC. */
export function ipv6Lies(me: Party, neighbour: Party): Lie[] {
  const of = ({ mac }: Party): Host6 => ({ mac: me.mac, ip: linkLocal(mac) });
  const [self, theirs] = [of(me), of(neighbour)];
  const them = { mac: neighbour.mac, ip: theirs.ip };
  const prefixes = [{ prefix: '2001:db8:6::' }];
  return [
    ["the neighbour's link-local address", 'spoofedAddress', echo6Frame(theirs, them, body)],
    [
      'an address of no prefix that is here',
      'spoofedAddress',
      echo6Frame({ ...self, ip: '2001:db8::1' }, them, body),
    ],
    ['no address', 'spoofedAddress', echo6Frame({ ...self, ip: '::' }, them, body)],
    [
      "an advertisement of the neighbour's address",
      'spoofedArp',
      advertisement(self, ALL_NODES6, theirs.ip, 0x20),
    ],
    [
      "an advertisement with the neighbour's MAC inside",
      'spoofedArp',
      advertisement(self, them, self.ip, 0x60, neighbour.mac),
    ],
    ["a router's message", 'spoofedArp', routerAdvertisement(self, { prefixes })],
    [
      "a router's message behind options",
      'spoofedArp',
      withExtensions(
        routerAdvertisement(self, { prefixes }),
        60,
        Uint8Array.of(58, 0, 1, 4, 0, 0, 0, 0),
      ),
    ],
    [
      "a router's message in pieces",
      'spoofedArp',
      fragments6(routerAdvertisement(self, { prefixes }), 32)[0]!,
    ],
    [
      'IPv4 that says it is IPv6',
      'truncated',
      poke(udpFrame({ ...me, port: PORT }, { ...neighbour, port: PORT }, body), 12, 0x86, 0xdd),
    ],
  ];
}

/** fe80:: and what its MAC makes (RFC 4291, appendix A). */
function linkLocal(mac: number): string {
  const words = Int32Array.of(0xfe800000, 0, 0, 0);
  setEui64(words, 0, macHi(mac), macLo(mac) | 0);
  return formatIpv6(words);
}

/** By a VNIC with some UDP ports of its address and nothing else. */
export function narrowLies(me: Party, neighbour: Party, elsewhere: Party): Lie[] {
  const udp = (port: number, to: Party = elsewhere): Uint8Array =>
    udpFrame({ ...me, port }, { ...to, port: PORT }, body);
  const right = udp(PORT);
  const tcp = ipv4Frame(me, elsewhere, 6, right.slice(34));
  return [
    ['another port', 'spoofedPort', udp(WRONG_PORT)],
    ['a port below', 'spoofedPort', udp(NARROW_PORTS[0] - 1)],
    ['port 0', 'spoofedPort', udp(0)],
    ['another port, to the neighbour', 'spoofedPort', udp(WRONG_PORT, neighbour)],
    ['TCP from a port that it has of UDP', 'spoofedPort', tcp],
    ['a ping', 'spoofedPort', echoFrame(me, elsewhere, body)],
    ['another port behind IP options', 'spoofedPort', withOptions(udp(WRONG_PORT), NO_OPS)],
    [
      'options that look like its port',
      'spoofedPort',
      withOptions(udp(WRONG_PORT), Buffer.from([PORT >>> 8, PORT & 255, 0, 0])),
    ],
    ['a later fragment', 'spoofedPort', poke(udp(PORT), 20, 0x00, 0x10)],
    [
      'a fragment that would write over the ports of the first',
      'spoofedPort',
      poke(udp(PORT), 20, 0x20, 0x01),
    ],
    ['the last fragment of all', 'spoofedPort', poke(udp(PORT), 20, 0x1f, 0xff)],
    [
      'a first fragment that ends in the ports',
      'truncated',
      poke(right.slice(0, 36), 16, 0, 22, 0, 7, 0x20),
    ],
    [
      'ARP for the address of which it has some ports',
      'spoofedArp',
      arpFrame(arp.OP_REQUEST, me, elsewhere),
    ],
  ];
}

/** What the same VNICs may send: the test sees that not everything is dropped. */
export const honest = (me: Party, to: Party): Uint8Array =>
  udpFrame({ ...me, port: PORT }, { ...to, port: PORT }, body);
