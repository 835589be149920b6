/** What the source of `arrakis bench tcp` is to do, and what it saw: plain JSON between processes. */
export interface BulkJob {
  sourceAddress: string;
  destinationAddress: string;
  /** Null: ask by ARP. */
  destinationMac: string | null;
  port: number;
  connections: number;
  warmupMs: number;
  durationMs: number;
  pollTowards?: string;
}

export interface BulkResult {
  /** Acknowledged by the sink, after the warm-up. */
  bytes: number;
  gbitPerSecond: number;
  retransmits: number;
}

export interface IdleResult {
  connections: number;
  /** Of one end of a connection. */
  bytesPerConnection: number;
}
