/** Every limit of the stack in one table. Sizes bound memory that a peer can make us keep; times are milliseconds. */
export const NET_LIMITS = {
  /** Frames taken from the device in one turn. */
  batchMax: 64,
  /** Frames that wait for room in the transmit ring; more are dropped and counted (`txFull`). */
  txQueueMax: 256,
  /** Frames to ourselves that wait for the next turn. */
  loopQueueMax: 64,
  /** Routes besides the subnet and the gateway: they are walked one by one. */
  routesMax: 64,
  /** Multicast groups that one interface is in. */
  groupsMax: 64,
  /** Reports of a change, and the time within which the next one comes (RFC 3376, sections 8.1 and 8.11). */
  igmpRobustness: 2,
  igmpRepeatMs: 1_000,
  /** How long an older router is remembered: robustness * query interval + response interval (RFC 3376, section 8.12). */
  igmpOlderRouterMs: 260_000,
  /** Sent frames returned to the pool in one turn: more than a batch, so that a backlog shrinks. */
  reclaimMax: 128,

  /** The neighbour cache has this many sets of `arpWays` entries. A power of two. */
  arpSets: 64,
  arpWays: 4,
  /** Frames that wait for one neighbour's address; a newer one displaces the oldest. */
  arpPendingPerNeighbour: 4,
  /** Frames that wait for any: a scan of dead addresses must not eat the pool. */
  arpPendingMax: 64,
  /** How long an answer counts before it is asked for again. */
  arpReachableMs: 60_000,
  /** One request a second for each neighbour (RFC 1122, section 2.3.2.1). */
  arpRetryMs: 1_000,
  arpTriesMax: 3,
  /** How often a thread that waits for an answer looks whether the first thread has passed it on. */
  arpHearMs: 1,

  /** Address conflict detection (RFC 5227, section 1.1): probes, announcements, and how often we defend. */
  probeWaitMs: 1_000,
  probeCount: 3,
  probeMinMs: 1_000,
  probeMaxMs: 2_000,
  announceCount: 2,
  announceMs: 2_000,
  defendMs: 10_000,

  /** Datagrams that wait for their fragments, and the frames that these hold: also at most a quarter of the pool. */
  reassemblyDatagramsMax: 64,
  reassemblyFramesMax: 128,
  /** What one sender may have of both, in eighths. */
  reassemblySourceShare: 4,
  /** Fragments of one datagram: 65,535 bytes in pieces of an Ethernet's MTU are 45. */
  reassemblyPiecesMax: 64,
  /** A piece that is not the last carries this at least: every link carries 68 bytes (RFC 791, section 3.1). */
  fragmentLengthMin: 48,
  /** How long a datagram waits: RFC 1122, section 3.3.2 (less, for RFC 4963), and RFC 8200, section 4.5. */
  reassemblyV4Ms: 30_000,
  reassemblyV6Ms: 60_000,

  /** Paths whose MTU is smaller than the link's: sets of `pathMtuWays`. A power of two. */
  pathMtuSets: 64,
  pathMtuWays: 4,
  /** When a path is tried with the link's MTU again (RFC 1191, section 6.3). */
  pathMtuMs: 600_000,
  /** No router makes us send less than this (RFC 4821, section 7.7; RFC 8200, section 5). */
  pathMtuV4Min: 552,
  pathMtuV6Min: 1280,

  /** IPv6: addresses of one interface, and multicast groups, of which each address needs one. */
  addresses6Max: 16,
  groups6Max: 48,
  /** The IPv6 neighbour cache: a power of two sets of `ndWays` entries. */
  ndSets: 64,
  ndWays: 4,
  /** Frames that wait for one IPv6 neighbour, and for any. */
  ndPendingPerNeighbour: 4,
  ndPendingMax: 64,
  /** RFC 4861, section 10: times and tries, and what a router may make of them. */
  ndReachableMs: 30_000,
  ndReachableMsMax: 3_600_000,
  ndRetransMs: 1_000,
  ndRetransMsMax: 60_000,
  ndDelayFirstProbeMs: 5_000,
  ndTriesMax: 3,
  /** Neighbour solicitations that we send: sustained rate and burst (RFC 6583, section 6.2). */
  ndSolicitsPerSecond: 100,
  ndSolicitBurst: 50,
  /** Routers and on-link prefixes that are remembered: a flood of advertisements fills no more. */
  routersMax: 4,
  prefixesMax: 8,
  routerSolicitsMax: 3,
  routerSolicitIntervalMs: 4_000,
  /** Addresses tried after duplicates (RFC 7217, section 7). */
  iidTriesMax: 3,
  /** A router may not make what we send die on its way (RFC 4861 knows no least value). */
  hopLimitMin: 32,
  /** Reports of a changed group, and the time within which each is sent (RFC 3810, section 9). */
  mldRobustness: 2,
  mldReportMs: 1_000,

  /** ICMP errors: sustained rate and burst (RFC 1812, section 4.3.2.8). */
  icmpErrorsPerSecond: 100,
  icmpErrorBurst: 50,
  /** Largest IPv4 datagram that carries an ICMP error (RFC 1812, section 4.3.2.3). */
  icmpErrorLengthMax: 576,

  /** UDP sockets of one interface: the index of one fits in 16 bits, 0 meaning none. */
  udpSocketsMax: 16_384,
  /** Sockets on one port: they are looked at one by one. */
  udpSocketsPerPortMax: 256,
  /** TCP: flows of an interface in every state, TIME-WAIT among them; of these, in TIME-WAIT. */
  tcpFlowsMax: 131_072,
  tcpTimeWaitMax: 65_536,
  tcpListenersMax: 1_024,
  /** Handshakes under way for one listener, unless it says otherwise, and at most. Beyond that, SYN cookies. */
  tcpBacklog: 512,
  tcpBacklogMax: 8_192,
  /** Bytes that a connection takes before its owner has them: at first, and when its peer fills that. */
  tcpReceiveBufferBytes: 65_535,
  tcpReceiveBufferBytesMax: 1_048_576,
  /** Pieces of received data that one connection keeps. */
  tcpPiecesMax: 1_024,
  /** Bytes and segments that a connection queues to send. */
  tcpSendBufferBytes: 524_288,
  tcpSendSegmentsMax: 512,
  /** Received frames kept by all connections: this share of the pool. Left over for everybody else by those that send. */
  tcpHeldShareLog2: 2,
  tcpReserveShareLog2: 3,
  /** Twice the longest life of a segment. RFC 9293 says four minutes; one is what everybody waits. */
  tcpTimeWaitMs: 60_000,
  /** An acknowledgement waits for data to go with, or for a second segment (RFC 9293, section 3.8.6.3: below 500). */
  tcpDelayedAckMs: 40,
  /** The part of a segment that `more` holds back is sent after so long anyhow. */
  tcpCorkMs: 200,
  /** Timeouts after which a SYN, a SYN-ACK, data, and window probes are given up (RFC 9293, section 3.8.3). */
  tcpSynTriesMax: 6,
  tcpSynAckTriesMax: 5,
  tcpDataTriesMax: 15,
  tcpProbesMax: 15,
  tcpPersistMsMin: 200,
  tcpPersistMsMax: 60_000,
  /** Keep-alive, unless the owner says otherwise: every so long, so often. */
  tcpKeepAliveIntervalMs: 75_000,
  tcpKeepAliveProbes: 9,
  /** Challenge ACKs of one connection (RFC 5961, section 10), and answers to segments that are out of place. */
  tcpChallengeAcks: 10,
  tcpChallengeWindowMs: 5_000,
  tcpStrayAckMs: 500,
  /** RSTs to segments that belong to no connection. */
  tcpResetsPerSecond: 1_000,
  tcpResetBurst: 200,
  /** A cookie is good for one to two of these (RFC 4987, section 3.6). */
  tcpCookieMs: 64_000,
  /** Where `connect` takes ports from (RFC 6335, section 6). */
  tcpDynamicPortMin: 49_152,
  tcpDynamicPortMax: 65_535,
  /** Smallest segment that we let a peer ask for (RFC 1191: IPv4 carries 576). */
  tcpMssMin: 88,

  /** Time to live of what we send (RFC 1122, section 3.2.1.7; the value is IANA's recommendation). */
  ttl: 64,
} as const satisfies Record<string, number>;
