/** One line of text about a frame, for traces and test failures. Never on the hot path: it makes strings. */
import { formatIpv4 } from '../base/address.ts';
import * as arp from './arp.ts';
import * as ethernet from './ethernet.ts';
import { HeaderWalk, WALK } from './extensions.ts';
import * as icmp from './icmp.ts';
import * as icmpv6 from './icmpv6.ts';
import * as ipv4 from './ipv4.ts';
import * as ipv6 from './ipv6.ts';
import * as ndp from './ndp.ts';
import * as tcp from './tcp.ts';
import * as udp from './udp.ts';

/** The frame of `length` bytes at `at`, as deep as it is well formed: `10.0.0.1 > 10.0.0.2 UDP 1024 > 7 len 22`. */
export function formatFrame(frame: DataView, at: number, length: number): string {
  const end = at + length;
  const inner = at + ethernet.HEADER_LEN;
  if (ethernet.check(frame, at, end) < 0) return `bad Ethernet header, ${length} bytes`;
  switch (ethernet.type(frame, at)) {
    case ethernet.TYPE_ARP:
      return arp.check(frame, inner, end) < 0
        ? `${ethernet.format(frame, at)} bad ARP`
        : arp.format(frame, inner);
    case ethernet.TYPE_IPV4:
      return formatDatagram(frame, inner, end);
    case ethernet.TYPE_IPV6:
      return formatPacket(frame, inner, end);
    default:
      return `${ethernet.format(frame, at)}, ${length} bytes`;
  }
}

function formatDatagram(frame: DataView, at: number, end: number): string {
  const length = ipv4.check(frame, at, end);
  if (length < 0) return `bad IPv4 ${length === ipv4.BAD_CHECKSUM ? 'checksum' : 'header'}`;
  const inner = at + ipv4.headerLength(frame, at);
  const path = `${formatIpv4(ipv4.src(frame, at))} > ${formatIpv4(ipv4.dst(frame, at))}`;
  const protocol = ipv4.protocol(frame, at);
  if (ipv4.isFragment(frame, at)) return ipv4.format(frame, at);
  if (protocol === ipv4.PROTOCOL_UDP && udp.check(frame, inner, inner + length) >= 0) {
    return `${path} ${udp.format(frame, inner)}`;
  }
  if (protocol === ipv4.PROTOCOL_TCP && tcp.check(frame, inner, inner + length) >= 0) {
    return `${path} ${tcp.format(frame, inner, length)}`;
  }
  if (protocol === ipv4.PROTOCOL_ICMP && icmp.check(frame, inner, inner + length) >= 0) {
    return `${path} ${icmp.format(frame, inner)}`;
  }
  return ipv4.format(frame, at);
}

const walk = new HeaderWalk();

function formatPacket(frame: DataView, at: number, end: number): string {
  const length = ipv6.check(frame, at, end);
  if (length < 0) return 'bad IPv6 header';
  const first = at + ipv6.HEADER_LEN;
  const last = first + length;
  const outcome = walk.run(frame, first, last, ipv6.nextHeader(frame, at), at + 6, true);
  if (outcome !== WALK.payload) {
    return `${ipv6.format(frame, at)}${outcome === WALK.fragment ? ' fragment' : ' bad extension header'}`;
  }
  const inner = walk.payloadAt;
  const path = ipv6.formatPath(frame, at);
  if (walk.protocol === ipv4.PROTOCOL_UDP && udp.check(frame, inner, last) >= 0) {
    return `${path} ${udp.format(frame, inner)}`;
  }
  if (walk.protocol === ipv4.PROTOCOL_TCP && tcp.check(frame, inner, last) >= 0) {
    return `${path} ${tcp.format(frame, inner, last - inner)}`;
  }
  if (walk.protocol === ipv6.PROTOCOL_ICMPV6 && icmpv6.check(frame, inner, last, at) >= 0) {
    const type = icmpv6.type(frame, inner);
    if (!ndp.isNdp(type)) return `${path} ${icmpv6.format(frame, inner)}`;
    const isWhole = ndp.check(frame, inner, last, type);
    return `${path} ${isWhole ? ndp.format(frame, inner, last, type) : 'bad ND'}`;
  }
  return ipv6.format(frame, at);
}
