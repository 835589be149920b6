/**
 * Every limit of the daemon, in one place. Units are the last word of a name.
 * What a client may make the daemon hold, wait for or send is bounded by one of these.
 */
export const LIMITS = {
  /** One control message, JSON text. */
  messageBytesMax: 65536,
  /** Descriptors with one message: the region of a VNIC and a socket for each of its queue pairs are the most. */
  messageFdsMax: 12,
  /** Messages of one connection that are handled before others get their turn. */
  messagesPerTurnMax: 16,
  /** Malformed messages of one connection before it is closed. */
  badMessagesMax: 100,
  /** A new connection must say hello within this time. */
  helloMsMax: 5_000,
  /** Connections of one uid, and of everybody. */
  connectionsPerUidMax: 64,
  connectionsMax: 512,
  /** Of `connectionsMax`, kept for privileged users: others together get the rest. */
  connectionsReserved: 64,
  /** How long nothing is accepted when there are no descriptors for it. */
  acceptPauseMs: 100,
  /** Connections that wait to be accepted. */
  listenBacklog: 1024,
  /** Replies and events that wait for a slow reader, and how long it may make them wait. */
  sendQueueMax: 64,
  sendStallMsMax: 5_000,
  sendRetryMs: 5,
  /**
   * Descriptors on their way to one client. The kernel counts those that our user has sent and nobody has taken, and
   * refuses all of its processes more than RLIMIT_NOFILE. And the longest pause between two looks whether those of a
   * connection that is closed are gone.
   */
  fdsUnderWayMax: 128,
  lingerMsMax: 250,
  /** Lines of the log with the same message. */
  logLinesPerSecondMax: 20,
  /** Objects. */
  vnicsPerDomainMax: 16,
  vnicsMax: 256,
  /**
   * VNICs that a user may have by its capabilities, where the policy does not say, and the bytes of their packet memory:
   * nobody can have what is everybody's.
   */
  vnicsPerUidMax: 64,
  vnicBytesPerUidMax: 1024 * 1024 * 1024,
  filtersPerVnicMax: 64,
  /** Boxes of the filters of a VNIC in one direction: each costs the device a comparison per packet. */
  boxesPerVnicMax: 128,
  /** Capabilities that a domain may have made, for itself and for others. */
  capsPerDomainMax: 1024,
  /**
   * Of those that a domain may have made: what look-ups of its names may take, those of one user and of all, so that who
   * names something can still make some of its own. And how many one user may have given to one domain.
   */
  capsLookedUpPerUidMax: 128,
  capsLookedUpMax: 768,
  capsGivenPerUidMax: 256,
  /** Length of a chain of derivations. */
  capDepthMax: 64,
  /** Capabilities that one event names, and how long what is to be told waits for a domain that reads slowly. */
  capsPerEventMax: 1000,
  noticeRetryMs: 20,
  /** How long holders may keep what is revoked from them. */
  revokeGraceMsDefault: 100,
  revokeGraceMsMax: 5_000,
  /** How long a process may hold the sockets of a direct VNIC that is no more, before it is killed. */
  repossessMs: 500,
  /** The same for others than the process that it was given to, once that one was killed. */
  repossessOthersMs: 100,
  /** The policy file: its size, how deep it is nested, what it names, and how many problems of it are told. */
  policyBytesMax: 256 * 1024,
  policyDepthMax: 32,
  policyEntriesMax: 8192,
  policyProblemsMax: 100,
  programPathLengthMax: 4096,
  nameLengthMax: 32,
  pathLengthMax: 100,
  /** The tree of names: bytes of one part and of a path, parts of a path, entries. */
  namePartBytesMax: 64,
  namePathBytesMax: 512,
  nameDepthMax: 16,
  namesPerDomainMax: 256,
  /** Of one user over all its domains, as the next: nobody can fill what is everybody's. */
  namesPerUidMax: 1024,
  namesPerDirectoryMax: 4096,
  namesMax: 16_384,
  watchesPerDomainMax: 32,
  /** Changes of one watch that are told one by one; of more only that there were. */
  changesPerEventMax: 64,
  /** How long a domain that serves a directory may take for an answer, and how many it may owe. */
  nameAnswerMsMax: 2_000,
  nameQuestionsMax: 64,
  /**
   * Shared regions: how many a domain, a user and everybody may have, as each is a descriptor here and with the keeper;
   * and the bytes of a domain's own, of its user's and of everybody's.
   */
  regionsPerDomainMax: 64,
  regionsPerUidMax: 512,
  regionsMax: 2048,
  regionBytesPerDomainMax: 256 * 1024 * 1024,
  regionBytesPerUidMax: 1024 * 1024 * 1024,
  regionBytesMax: 4 * 1024 * 1024 * 1024,
  /** Endpoints of a domain, its connections to those of others, and those to one endpoint, of one user and of all. */
  endpointsPerDomainMax: 32,
  connectionsPerDomainMax: 64,
  connectionsPerEndpointUidMax: 64,
  connectionsPerEndpointMax: 256,
  /** Bytes of each of the two rings of a connection. */
  connectionRingBytesMax: 1024 * 1024,
  /** Bytes of the memory of the connections that one user made, and of all together. */
  connectionBytesPerUidMax: 512 * 1024 * 1024,
  connectionBytesMax: 2 * 1024 * 1024 * 1024,
  /** Connections that a listener was told of and has not accepted. */
  backlogDefault: 16,
  backlogMax: 32,
  /** Geometry of a VNIC. Powers of two. */
  framesMin: 256,
  framesMax: 65536,
  framesDefault: 2048,
  /** Numbers of processors, and applications whose processors are remembered. */
  cpusMax: 1024,
  placementsMax: 1024,
  /** Queue pairs of a VNIC, and frames of all of them together. */
  queuesPerVnicMax: 8,
  framesPerVnicMax: 131072,
  /** Entries of a ring: a quarter of the frames, up to this. Bulk transfer needs long ones, and fills them. */
  ringSizeMax: 4096,
  frameSizeDefault: 2048,
  /** Sanity bound on what a client asks of a capture. */
  snaplenMax: 65535,
  /** How long a client waits for a reply, and the daemon for a device process. */
  requestMsMax: 10_000,
  deviceRequestMsMax: 5_000,
  /** Restarts of a device process: the pause doubles from the first to the last. It is never given up. */
  deviceRestartMsFirst: 50,
  deviceRestartMsMax: 30_000,
  /** A device process that lived this long is taken for healthy: its restarts are forgotten. */
  deviceHealthyMs: 10_000,
  /** The journal is written anew when it is larger than this, and twice as large as what it says. */
  journalBytesMax: 1 << 20,
  /** How long the keeper waits for a daemon before it gives everything up, unless the daemon was told otherwise. */
  keeperMsMax: 60_000,
  /** How long the daemon waits for the keeper to take a message or to answer. */
  keeperAnswerMsMax: 2_000,
  /** Ids of objects that are set aside at once: the next daemon goes on after them. */
  idsReserved: 1024,
  /** What is told of the kernel's network, how often, and how many neighbours a VNIC has resolved in a second. */
  hostAddressesMax: 16,
  hostRoutesMax: 64,
  hostNeighboursMax: 256,
  hostNetworkMs: 10,
  resolvesPerSecond: 50,
  /** Ports of a shared address that are occupied for one VNIC: the keeper has a descriptor of each. */
  reservedPortsPerVnicMax: 64,
  /** Orderly end: children get this long before SIGKILL. */
  shutdownMsMax: 2_000,
} as const;

/**
 * Whom the software NIC of root's daemon becomes. A user of its own, in no range that systems hand out: applications
 * often run as "nobody", and whoever shares a user with the NIC may stop it, or take the sockets of its ports.
 */
export const NIC_USER = { uid: 64983, gid: 64983 } as const;
