/**
 * What the conformance cases run against: an endpoint of TCP, driven as its application would, at the other end of a
 * wire on which the case reads and writes frames. The Linux kernel is one (`kernel.ts`), Extaris another (`extaris.ts`).
 */
import type { Host } from '../../support/frames.ts';

/** Why a socket ended, other than in order. */
export type Failure = 'reset' | 'refused' | 'timedOut' | 'unreachable' | 'aborted' | string;

/** A connection as the application sees it. It reads whatever comes unless it is paused. */
export interface Socket {
  /** All that was read so far. */
  readonly received: Uint8Array;
  /** The peer's FIN was read. */
  readonly ended: boolean;
  readonly isOpen: boolean;
  readonly failure: Failure | null;
  /** Bytes accepted. */
  write(bytes: Uint8Array): number;
  /** Let what comes lie in the receive buffer. */
  pause(): void;
  resume(): void;
  /** Shut down the sending direction. */
  end(): void;
  /** RST, and forget it. */
  abort(): void;
  noDelay(on: boolean): void;
  /** Seconds. */
  keepAlive(idleS: number, intervalS: number, probes: number): void;
  userTimeout(ms: number): void;
}

export interface Listener {
  readonly accepted: readonly Socket[];
  close(): void;
}

/** An endpoint for one case. */
export interface Subject {
  readonly name: 'kernel' | 'extaris';
  /** Who we are on the wire, and ports that are this case's alone: the endpoint's, and ours. */
  readonly peer: Host;
  readonly port: number;
  readonly peerPort: number;
  readonly nowMs: number;
  /** When the frame that `next` gave last was put on the wire: not before the first, not after the second. */
  readonly arrivalMs: readonly [number, number];
  listen(options?: { backlog?: number }): Listener;
  /** Connect from `port` to `peerPort`. */
  connect(): Socket;
  /** Put a frame on the wire to the endpoint. */
  send(frame: Uint8Array): void;
  /** The next frame from the endpoint by `untilMs`; null when that time has come. */
  next(untilMs: number): Promise<Uint8Array | null>;
  /** Let time pass. Frames that come meanwhile are kept for `next`. */
  pass(ms: number): Promise<void>;
  /** End everything that the case left; then check that nothing is left over. */
  finish(): Promise<void>;
}
