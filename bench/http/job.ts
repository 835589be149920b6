/** What the client of `arrakis bench http` is to do, and what it saw: plain JSON between processes. */
export interface HttpJob {
  /** Our address, when the way has not one of its own. */
  sourceAddress: string;
  destinationAddress: string;
  /** Null: ask by ARP. */
  destinationMac: string | null;
  port: number;
  path: string;
  connections: number;
  /** False: a connection for each request. */
  keepAlive: boolean;
  warmupMs: number;
  durationMs: number;
  /** Path of the server's network namespace: poll our interface ourselves (echo/self-polled.ts). Default: by softirq. */
  pollTowards?: string;
}

export interface HttpResult {
  requests: number;
  requestsPerSecond: number;
  /** Microseconds from a request to the last byte of its response. */
  rtt: { p50: number; p99: number; p999: number };
  /** Connections that ended before their response did. */
  failed: number;
  /** Bytes of a response, head and body. */
  responseBytes: number;
}
