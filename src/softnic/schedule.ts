/**
 * Deficit round robin (Shreedhar and Varghese, 1996) between the ports that share this device, or its link: each round
 * gives every sender bytes in proportion to its weight. As in fq_codel the deficit may be overdrawn by one frame, which
 * is owed in later rounds: so a frame's length need not be known before it is taken.
 *
 * - Who has nothing to send, or may not, saves nothing up.
 * - The link may run out in the middle of a sender's share; the next round goes on there.
 * - Shorter frames than Ethernet's shortest count as that (MIN_FRAME_BYTES): a link would pad them.
 */
/** What the heaviest sender gets in a round; the others less, by weight. A batch of small frames. */
export const ROUND_BYTES = 4096;
export const MIN_FRAME_BYTES = 60;
/** More than any sender owes. Whole numbers all through: fractions would be allocated. */
const NONE = 2 ** 30;

/** What is shared: a pacer, or what is left of a turn. */
export interface Room {
  readonly open: boolean;
  readonly roomBytes: number;
  charge(bytes: number): void;
}

/** A sender, with frames for an `S`. The scheduler owns `deficit`. */
export interface Sender<S> {
  readonly weight: number;
  deficit: number;
  /** Send to `sink` while fewer than `bytes` went; the last frame may go beyond. The bytes that went. */
  serve(sink: S, bytes: number): number;
  /** Whether it has frames that may go at once. */
  isReady(): boolean;
}

export class Scheduler {
  /** Bytes for weight 1 in a round. */
  #quantum = ROUND_BYTES;
  #senders: readonly Sender<never>[] = [];
  #next = 0;
  /** The sender at `#next` has had its share of this round, and the link ran out before it was used. */
  #isMidShare = false;

  /**
   * The senders, or a weight among them, have changed. The round goes on where it was as long as they are the same: who
   * has weights set again and again would otherwise always be the next.
   */
  reset(senders: readonly Sender<never>[]): void {
    const heaviest = senders.reduce((max, { weight }) => Math.max(max, weight), 1);
    this.#quantum = Math.floor(ROUND_BYTES / heaviest);
    if (senders === this.#senders) return;
    this.#senders = senders;
    if (this.#next >= senders.length) this.#next = 0;
    this.#isMidShare = false;
    for (const sender of senders) sender.deficit = Math.min(sender.deficit, 0);
  }

  /** One round over `senders`, as far as `link` lets them. Bytes that went: 0 only when none may send now. */
  round<S>(senders: readonly Sender<S>[], link: Room | null, sink: S): number {
    const bytes = this.#pass(senders, link, sink);
    if (bytes > 0 || (link !== null && !link.open)) return bytes;
    // All who are ready owe: the rounds in which they would only pay are over in one step.
    return this.#payOff(senders) ? this.#pass(senders, link, sink) : 0;
  }

  #pass<S>(senders: readonly Sender<S>[], link: Room | null, sink: S): number {
    let total = 0;
    for (let visited = 0; visited < senders.length; visited++) {
      if (link !== null && !link.open) break;
      const sender = senders[this.#next]!;
      const share = this.#quantum * sender.weight;
      if (!this.#isMidShare) sender.deficit = Math.min(sender.deficit + share, share);
      this.#isMidShare = false;
      if (sender.deficit > 0) {
        const room = link === null ? sender.deficit : Math.min(sender.deficit, link.roomBytes);
        const bytes = sender.serve(sink, room);
        total += bytes;
        sender.deficit -= bytes;
        link?.charge(bytes);
        if (sender.deficit > 0) {
          if (link !== null && !link.open) {
            this.#isMidShare = true;
            break;
          }
          if (!sender.isReady()) sender.deficit = 0;
        }
      }
      this.#next = (this.#next + 1) % senders.length;
    }
    return total;
  }

  /** False when nobody is ready. */
  #payOff(senders: readonly Sender<never>[]): boolean {
    let rounds = NONE;
    for (let i = 0; i < senders.length; i++) {
      const sender = senders[i]!;
      if (sender.deficit > 0 || !sender.isReady()) continue;
      rounds = Math.min(rounds, Math.floor(-sender.deficit / (this.#quantum * sender.weight)));
    }
    if (rounds === NONE) return false;
    for (let i = 0; i < senders.length; i++) {
      const sender = senders[i]!;
      if (sender.deficit > 0) continue;
      sender.deficit = Math.min(sender.deficit + rounds * this.#quantum * sender.weight, 0);
    }
    return true;
  }
}
