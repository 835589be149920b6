/**
 * Was the last reduction of the window unfounded? Either every retransmission was a duplicate for the peer (D-SACK, RFC
 * 3708), or the first acknowledgement of what was retransmitted answers what was sent before (timestamps, RFC 3522), or
 * everything arrived before anything was sent again. The answer may come a round trip after recovery has ended.
 */
import type { AckScratch } from './ack.ts';

/** Round trips after the end of recovery for which its retransmissions may be reported as duplicates. */
const ROUNDS_AFTER = 3;

export class UndoState {
  isActive = false;
  /** Retransmissions that nobody reported as duplicates yet. */
  #retransmissions = 0;
  #wasResent = false;
  /** What was outstanding when it began. */
  #from = 0;
  #to = 0;
  /** When the first retransmission was sent, and where it ended; until it is acknowledged. */
  #hasStamp = false;
  #stampUs = 0;
  #stampSeq = 0;
  #rounds = 0;

  /** Recovery from loss begins, with `una` to `nxt` outstanding. */
  start(una: number, nxt: number): void {
    this.isActive = true;
    this.#retransmissions = this.#rounds = 0;
    this.#wasResent = this.#hasStamp = false;
    this.#from = una;
    this.#to = nxt;
  }

  onRetransmit(seqEnd: number, nowUs: number): void {
    if (!this.isActive) return;
    this.#retransmissions++;
    if (this.#wasResent) return;
    this.#wasResent = this.#hasStamp = true;
    this.#stampUs = nowUs;
    this.#stampSeq = seqEnd;
  }

  /** An acknowledgement that advanced. True when its echo is of before the first retransmission. */
  isEchoEarlier(ack: AckScratch, tickUs: number): boolean {
    if (!this.#hasStamp || ((ack.seq - this.#stampSeq) | 0) < 0) return false;
    this.#hasStamp = false;
    return this.isActive && ack.hasEcho && ((ack.echoUs - this.#stampUs) | 0) <= -tickUs;
  }

  /** True when with this D-SACK every retransmission was one too many. */
  isDsackLast(left: number, right: number, mss: number): boolean {
    if (!this.isActive || this.#retransmissions === 0) return false;
    if (((left - this.#from) | 0) < 0 || ((this.#to - right) | 0) < 0) return false;
    const segments = Math.ceil(((right - left) | 0) / mss);
    this.#retransmissions = Math.max(0, this.#retransmissions - segments);
    return this.#retransmissions === 0;
  }

  /** Recovery ends. True when nothing was sent again: what counted as lost came by itself. */
  onEnd(): boolean {
    this.#rounds = ROUNDS_AFTER;
    return this.isActive && !this.#wasResent;
  }

  /** A round trip ended, outside of recovery. False when nothing can be undone any more. */
  onRound(): boolean {
    if (--this.#rounds < 0) this.isActive = false;
    return this.isActive;
  }
}
