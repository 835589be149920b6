/**
 * The interface of congestion control, and what its implementations share. `Recovery` finds out what was lost and calls
 * these hooks; an implementation only says how large the window is. All windows are bytes, all times wrapping int32 in
 * microseconds.
 *
 * - During recovery the window is set by PRR (`prr.ts`) from the threshold that `onLoss` chose.
 * - A hook never allocates. One object belongs to one connection.
 */
import type { RttEstimator } from './rtt.ts';

export interface CongestionControl {
  /** For TcpInfo. */
  readonly name: string;
  /** Congestion window, at least one segment. PRR writes it in recovery. */
  window: number;
  /** Slow start threshold. */
  threshold: number;

  /** Once, when the connection is open and its segment size known: the initial window (RFC 6928). */
  start(mss: number, nowUs: number): void;
  /** The path takes another segment size: the window stays as it is in bytes, at least one segment. */
  setMss(mss: number): void;
  /**
   * `acked` bytes were acknowledged, outside of recovery; what is only sacked does not count (RFC 5681, section 3.1).
   * `isLimited`: the window was what held the sender back; otherwise it must not grow (RFC 7661).
   */
  onAck(acked: number, isLimited: boolean, nowUs: number, rtt: RttEstimator): void;
  /** Loss was found and recovery begins: choose the threshold (RFC 5681, section 3.2). `flight`: bytes outstanding. */
  onLoss(flight: number, nowUs: number): void;
  /** Recovery is over: the window is the threshold. */
  onExitRecovery(nowUs: number): void;
  /** The retransmission timer expired. `isFirst`: for this data, so the threshold is chosen anew. */
  onRto(flight: number, isFirst: boolean, nowUs: number): void;
  /** The last `onLoss` or `onRto` was unfounded: back to what was before (RFC 4015). */
  onUndo(nowUs: number): void;
  /** Sending goes on after a pause of `idleUs` with nothing outstanding, longer than `rtoUs` (RFC 5681, section 4.1). */
  onRestartAfterIdle(idleUs: number, rtoUs: number, nowUs: number): void;
  /** What was outstanding at the last of these calls has been acknowledged: a round trip (HyStart++). */
  onRound(): void;
  /** A pacing rate that suits the window, bytes a second; 0: no opinion. */
  pacingHint(srttUs: number): number;
}

/** No threshold yet: slow start goes on until something is lost. Small enough for int32 arithmetic. */
export const THRESHOLD_NONE = 0x3fffffff;
/** Windows never exceed what a scaled window can offer (RFC 7323, section 2.2). */
export const WINDOW_MAX = 0x3fffffff;

/** RFC 6928: ten segments, at most 14,600 bytes unless a segment is larger than that. */
export function initialWindow(mss: number): number {
  return Math.min(10 * mss, Math.max(2 * mss, 14_600));
}
