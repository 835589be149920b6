/** Limits of a channel: what a peer may make us hold. Units are the last word of a name. */
export const CHANNEL_LIMITS = {
  /** Requests and streams of one side that are in flight, and handlers of the other side that are at work. */
  requestsMax: 256,
  /** Messages that wait for room in the ring: more means that the peer does not read. */
  waitingMax: 1024,
  /** Items of a stream that are sent before the receiver has taken any. */
  streamWindow: 32,
  /** Messages that one turn handles before others get theirs. */
  messagesPerTurnMax: 64,
  requestMsDefault: 10_000,
  /** Characters of a reason or error text from a peer that are kept. */
  errorTextMax: 1000,
} as const;
