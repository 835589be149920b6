/**
 * What the stack counts, in frames since it was made.
 *
 * Every received frame ends in exactly one of RX_OUTCOMES, so their sum is `rxFrames`.
 */
export const RX_OUTCOMES = [
  /** Handled: ARP for us, an echo request answered, another ICMP message, a datagram given to its handler. */
  'rxArp',
  'rxEcho',
  'rxIcmp',
  'rxUdp',
  'rxIgmp',
  /** An ICMP error about a packet that we had sent. */
  'rxIcmpError',
  /** A TCP segment for a connection or a listener, whatever that did with it (TCP_EVENTS). */
  'rxTcp',
  /** Neighbour discovery and MLD for us. */
  'rxNd',
  'rxMld',
  /** Shorter than its header, an IEEE 802.3 frame, or sent by a group address. */
  'badEthernet',
  'badArp',
  /** Somebody else sends ARP with our address as its own. */
  'arpConflict',
  /** Neighbour discovery that breaks its rules (RFC 4861, sections 6.1 and 7.1; RFC 6980). */
  'badNd',
  /** Somebody else has an address of ours, or tries to get it. */
  'ndConflict',
  'badIp',
  /** From an address that cannot be a sender: our own, a group, loopback, network zero. */
  'badSource',
  'badUdp',
  'badIcmp',
  'badIgmp',
  /** An ICMP error that quotes no packet of ours. */
  'badQuote',
  /** A frame of another VLAN, or without the tag that it should have, or with one that it should not. */
  'otherVlan',
  'badTcp',
  /** An extension header or option that a packet may not have, or that says: drop it. */
  'badExtension',
  /** Wrong checksum in the IPv4, UDP, TCP or ICMP header. */
  'badChecksum',
  'notForUs',
  /** A fragment that waits for the others. The one that makes the datagram whole has the datagram's outcome. */
  'fragment',
  /** A fragment that was refused: too small, overlapping, a repetition, or beyond what its sender may have. */
  'badFragment',
  /** A datagram of several fragments that fits in no frame, and nobody takes such. */
  'tooLarge',
  /** Options that lie about their length, or ask for a way of their own (RFC 7126). */
  'badOptions',
  /** Neither IPv4 nor ARP, nor IPv6 where it is on. */
  'otherProtocol',
  /** IPv4 or IPv6, but no protocol of ours. */
  'noProtocol',
  /** UDP to a port that nobody has bound. */
  'noSocket',
  /** TCP for no connection and no listener. */
  'noConnection',
] as const;

/** What TCP did with segments beyond the plain course of things. */
export const TCP_EVENTS = [
  /** Segments to and from connections. */
  'tcpSegmentsOut',
  'tcpConnects',
  'tcpAccepts',
  /** Dropped: outside the window, an old duplicate by its timestamp, acknowledging what was never sent, an old ACK. */
  'tcpOutOfWindow',
  'tcpPaws',
  'tcpBadAck',
  'tcpBadOptions',
  /** A state has no use for it: no ACK bit, data after the end, a SYN that makes no sense. */
  'tcpUnexpected',
  /** Data that was there already; data that came before what precedes it. */
  'tcpDuplicate',
  'tcpOutOfOrder',
  /** Data dropped, to be sent again by the peer: too much of it is kept (NET_LIMITS). */
  'tcpReceiveFull',
  /** No frame was free for a segment; no room in the transmit queue. */
  'tcpNoFrame',
  'tcpNoRoom',
  'tcpChallengeAcks',
  'tcpChallengeLimited',
  'tcpResetsSent',
  'tcpResetsLimited',
  'tcpResetsReceived',
  'tcpBadResets',
  /** A SYN that was dropped because there are NET_LIMITS.tcpFlowsMax flows; flows in TIME-WAIT that made room. */
  'tcpFlowsFull',
  'tcpTimeWaitEvicted',
  /** A SYN found the backlog full and got a cookie; cookies that came back, and that were wrong. */
  'tcpCookiesSent',
  'tcpCookiesAccepted',
  'tcpCookiesBad',
  /** Connections that ended without an answer. */
  'tcpTimedOut',
  'tcpZeroWindowProbes',
  'tcpKeepAlives',
  'tcpIcmpErrors',
  'tcpIcmpIgnored',
  /** The sender's half (recovery.ts). */
  'retransmits',
  'timeouts',
  'probes',
  'recoveries',
  'undone',
  'dsacks',
  'badSacks',
  'reneged',
] as const;

/** What happened to datagrams in pieces. */
export const FRAGMENT_EVENTS = [
  'reassembled',
  /** Given up: time was up; overlapping or contradictory; the room was wanted for others. */
  'reassemblyTimeout',
  'reassemblyRefused',
  'reassemblyFull',
  /** Datagrams that we sent in pieces. */
  'txFragmented',
] as const;

export const TX_EVENTS = [
  /** Frames that the device accepted. */
  'txFrames',
  /** Dropped: the transmit queue was full; longer than the link carries; no way to the address. */
  'txFull',
  'txTooLong',
  'noRoute',
  /** Dropped: too many frames to ourselves. */
  'loopFull',
  /** Dropped: the address is shared with the kernel, and nobody has told us the neighbour. */
  'noNeighbour',
  /** The pool had no frame for a message of the stack's own, such as an ARP request. */
  'noFrame',
  /** Frames that waited for a neighbour; of these, dropped for lack of room, and for lack of an answer. */
  'arpPending',
  'arpPendingFull',
  'arpFailed',
  'arpRequests',
  'arpReplies',
  'igmpReports',
  /** The same for IPv6. */
  'ndPending',
  'ndPendingFull',
  'ndFailed',
  'ndSolicits',
  'ndAdverts',
  /** Solicitations put off because there were too many. */
  'ndLimited',
  'routerSolicits',
  'mldReports',
  /** Addresses that somebody else had first. */
  'addressDuplicate',
  'icmpErrors',
  /** ICMP errors not sent because there were too many. */
  'icmpLimited',
] as const;

export type NetCounter =
  | 'rxFrames'
  | (typeof RX_OUTCOMES)[number]
  | (typeof FRAGMENT_EVENTS)[number]
  | (typeof TCP_EVENTS)[number]
  | (typeof TX_EVENTS)[number];
export type NetCounters = Record<NetCounter, number>;

export function newNetCounters(): NetCounters {
  const names: readonly NetCounter[] = [
    'rxFrames',
    ...RX_OUTCOMES,
    ...FRAGMENT_EVENTS,
    ...TX_EVENTS,
    ...TCP_EVENTS,
  ];
  return Object.fromEntries(names.map((name) => [name, 0])) as NetCounters;
}

/** The counters that are not zero, as `rxFrames 3, rxUdp 2, notForUs 1`. */
export function formatNetCounters(counters: NetCounters): string {
  const parts = Object.entries(counters).filter(([, count]) => count > 0);
  return parts.map(([name, count]) => `${name} ${count}`).join(', ') || 'nothing counted';
}
