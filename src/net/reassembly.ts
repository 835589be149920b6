/**
 * Fragments back into datagrams (RFC 791, section 3.2; RFC 815; RFC 8200, section 4.5), for both families.
 *
 *   none --first fragment--> waiting --all there--> given back whole
 *                              |  |---- time is up, or its frames are wanted more elsewhere --> none
 *                              +--overlap, lie about the length--> poisoned --time is up--> none
 *
 * - Fragments stay in the frames that they came in. A datagram that is whole goes back as one frame when the buffer of its
 *   first fragment has room for it; otherwise its bytes are gathered in `gathered`, for whoever takes such datagrams.
 * - Nothing ever overlaps: a piece that covers what is there already poisons the datagram, and what still comes of it is
 *   dropped until its time is up (RFC 5722). An exact repetition is dropped alone (RFC 8200, section 4.5).
 * - Bounded: datagrams, frames, pieces of one, time. A sender that has its share can only displace its own; whoever has
 *   most is displaced when all is full. Small pieces are refused before (RFC 1858, RFC 3128), by `fragmentLengthMin`.
 */
import { assert } from '../base/assert.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

/** What `add` says: kept or dropped (and counted); whole in a frame; whole in `gathered`. */
export const FRAGMENT = { kept: 0, frame: 1, gathered: 2 } as const;
export type FragmentOutcome = (typeof FRAGMENT)[keyof typeof FRAGMENT];

const DATAGRAMS = NET_LIMITS.reassemblyDatagramsMax;
const KEY_WORDS = 10;
/** Words of a key: source, destination, identification, and protocol with the family's bit. */
export const KEY = { source: 0, destination: 4, id: 8, protocol: 9 } as const;
/** In the key's protocol word: an IPv6 datagram. */
export const KEY_IPV6 = 0x100;
const NONE = -1;
const UNKNOWN = -1;
/** The longest payload of an IPv4 datagram (RFC 791) and of an IPv6 one without a jumbo option. */
const PAYLOAD_MAX = 65_535;

const STATE = { free: 0, waiting: 1, poisoned: 2 } as const;

export class Reassembly {
  /** Filled by the caller before `add` (see KEY); IPv4 addresses mapped, as in path-mtu.ts. */
  readonly key = new Int32Array(KEY_WORDS);
  /** The datagram that `add` made whole: its first frame, now in hand; where its payload starts there; its length. */
  frame = 0;
  payloadAt = 0;
  length = 0;
  /** Payload of a datagram that fits in no frame, `length` bytes. The next one overwrites it. */
  gathered = new Uint8Array(0);
  /** Called with the first fragment (its frame in hand) of a datagram whose time is up: "reassembly time exceeded". */
  onExpired: ((frame: number, payloadAt: number, isIpv6: boolean) => void) | null = null;

  readonly #link: Link;
  readonly #framesMax: number;
  readonly #sourceFramesMax: number;
  // Datagrams.
  readonly #state = new Uint8Array(DATAGRAMS);
  readonly #keys = new Int32Array(DATAGRAMS * KEY_WORDS);
  readonly #dueMs = new Float64Array(DATAGRAMS);
  /** Payload bytes that are there, and in all; UNKNOWN until the last fragment has come. */
  readonly #bytes = new Int32Array(DATAGRAMS);
  readonly #total = new Int32Array(DATAGRAMS);
  readonly #pieces = new Uint8Array(DATAGRAMS);
  /** First and last piece, in the order of their offsets. */
  readonly #head = new Int16Array(DATAGRAMS);
  readonly #tail = new Int16Array(DATAGRAMS);
  // Pieces: a frame, where the fragment's payload stands, its offset and length; a list.
  readonly #pieceFrame: Uint32Array;
  readonly #pieceAt: Uint32Array;
  readonly #pieceOffset: Int32Array;
  readonly #pieceLength: Int32Array;
  readonly #pieceNext: Int16Array;
  #freePiece = 0;
  #frames = 0;
  #count = 0;
  #nextDueMs = Number.POSITIVE_INFINITY;

  /** `frameCount`: of the interface's pool, a quarter of which may be held here at most. */
  constructor(link: Link, frameCount: number) {
    this.#link = link;
    const max = Math.min(NET_LIMITS.reassemblyFramesMax, frameCount >> 2);
    this.#framesMax = max;
    this.#sourceFramesMax = Math.max(1, (max * NET_LIMITS.reassemblySourceShare) >> 3);
    this.#pieceFrame = new Uint32Array(max);
    this.#pieceAt = new Uint32Array(max);
    this.#pieceOffset = new Int32Array(max);
    this.#pieceLength = new Int32Array(max);
    this.#pieceNext = Int16Array.from({ length: max }, (_, i) => (i + 1 < max ? i + 1 : NONE));
    if (max === 0) this.#freePiece = NONE;
  }

  /** Datagrams that wait or are poisoned, and frames that they hold. */
  get datagrams(): number {
    return this.#count;
  }
  get framesHeld(): number {
    return this.#frames;
  }
  /** When `tick` next has something to do. */
  get nextDueMs(): number {
    return this.#nextDueMs;
  }

  /**
   * A fragment of the datagram `key`: `length` bytes at `payloadAt` of the frame in hand, to stand at `offset` of its payload;
   * `more` follow. It is kept, or dropped and counted, unless it makes the datagram whole. All lengths were checked against
   * the frame before. A datagram in one piece (offset 0, no more) is no fragment, and does not come here: also not when IPv6
   * says that it is one (RFC 6946).
   */
  add(
    frame: number,
    payloadAt: number,
    offset: number,
    length: number,
    more: boolean,
  ): FragmentOutcome {
    const { counters, nowMs } = this.#link;
    const isShort = more && (length < NET_LIMITS.fragmentLengthMin || (length & 7) !== 0);
    if (isShort || length === 0 || offset + length > PAYLOAD_MAX) {
      counters.badFragment++;
      return FRAGMENT.kept;
    }
    let datagram = this.#find();
    if (datagram !== NONE && nowMs >= this.#dueMs[datagram]!) {
      this.#expire(datagram);
      datagram = NONE;
    }
    if (datagram === NONE) datagram = this.#begin();
    if (this.#state[datagram] === STATE.poisoned) {
      counters.badFragment++;
      return FRAGMENT.kept;
    }
    const before = this.#placeOf(datagram, offset, length, more);
    if (before === REPEATED) {
      counters.badFragment++;
      return FRAGMENT.kept;
    }
    if (before === POISON) {
      counters.badFragment++;
      counters.reassemblyRefused++;
      this.#poison(datagram);
      return FRAGMENT.kept;
    }
    if (!this.#makeRoom(datagram)) {
      counters.badFragment++;
      return FRAGMENT.kept;
    }
    this.#insert(datagram, before, frame, payloadAt, offset, length);
    if (!more) this.#total[datagram] = offset + length;
    if (this.#bytes[datagram] !== this.#total[datagram]) {
      counters.fragment++;
      return FRAGMENT.kept;
    }
    return this.#finish(datagram);
  }

  /** End what waited too long. How many datagrams that were. */
  tick(): number {
    const { nowMs } = this.#link;
    if (nowMs < this.#nextDueMs) return 0;
    let ended = 0;
    let next = Number.POSITIVE_INFINITY;
    for (let datagram = 0; datagram < DATAGRAMS; datagram++) {
      if (this.#state[datagram] === STATE.free) continue;
      if (nowMs >= this.#dueMs[datagram]!) {
        this.#expire(datagram);
        ended++;
      } else next = Math.min(next, this.#dueMs[datagram]!);
    }
    this.#nextDueMs = next;
    return ended;
  }

  /** Give back every frame. */
  clear(): void {
    for (let datagram = 0; datagram < DATAGRAMS; datagram++) {
      if (this.#state[datagram] !== STATE.free) this.#forget(datagram);
    }
    this.#nextDueMs = Number.POSITIVE_INFINITY;
  }

  #find(): number {
    if (this.#count === 0) return NONE;
    const [keys, key] = [this.#keys, this.key];
    for (let datagram = 0; datagram < DATAGRAMS; datagram++) {
      if (this.#state[datagram] === STATE.free) continue;
      const at = datagram * KEY_WORDS;
      // The words that differ most, first.
      let word = KEY_WORDS - 1;
      if (keys[at + KEY.id] !== key[KEY.id]) continue;
      while (word >= 0 && keys[at + word] === key[word]) word--;
      if (word < 0) return datagram;
    }
    return NONE;
  }

  /** A new datagram for `key`, in the place of another when all places or the sender's share of them are taken. */
  #begin(): number {
    let free = NONE;
    let mine = 0;
    let oldestMine = NONE;
    for (let datagram = 0; datagram < DATAGRAMS; datagram++) {
      if (this.#state[datagram] === STATE.free) {
        if (free === NONE) free = datagram;
      } else if (this.#isSource(datagram, this.key, 0)) {
        mine++;
        if (oldestMine === NONE || this.#dueMs[datagram]! < this.#dueMs[oldestMine]!) {
          oldestMine = datagram;
        }
      }
    }
    const shareMax = (DATAGRAMS * NET_LIMITS.reassemblySourceShare) >> 3;
    let datagram = mine >= shareMax ? oldestMine : free;
    if (datagram === NONE) datagram = this.#greediest();
    if (this.#state[datagram] !== STATE.free) this.#displace(datagram);
    const isIpv6 = (this.key[KEY.protocol]! & KEY_IPV6) !== 0;
    const lifeMs = isIpv6 ? NET_LIMITS.reassemblyV6Ms : NET_LIMITS.reassemblyV4Ms;
    this.#state[datagram] = STATE.waiting;
    this.#keys.set(this.key, datagram * KEY_WORDS);
    this.#dueMs[datagram] = this.#link.nowMs + lifeMs;
    this.#nextDueMs = Math.min(this.#nextDueMs, this.#dueMs[datagram]!);
    this.#bytes[datagram] = 0;
    this.#total[datagram] = UNKNOWN;
    this.#pieces[datagram] = 0;
    this.#head[datagram] = NONE;
    this.#tail[datagram] = NONE;
    this.#count++;
    return datagram;
  }

  /** True when `datagram` is of the sender whose four words stand at `at` of `words`. */
  #isSource(datagram: number, words: Int32Array, at: number): boolean {
    const mine = datagram * KEY_WORDS;
    const keys = this.#keys;
    return (
      keys[mine + 3] === words[at + 3] &&
      keys[mine] === words[at] &&
      keys[mine + 1] === words[at + 1] &&
      keys[mine + 2] === words[at + 2]
    );
  }

  /** Frames that the sender of `datagram` has here. */
  #framesOfSource(datagram: number): number {
    let frames = 0;
    for (let other = 0; other < DATAGRAMS; other++) {
      if (
        this.#state[other] !== STATE.free &&
        this.#isSource(other, this.#keys, datagram * KEY_WORDS)
      ) {
        frames += this.#pieces[other]!;
      }
    }
    return frames;
  }

  /** The oldest datagram of the sender that has most here: datagrams (poisoned ones too), and frames. */
  #greediest(): number {
    let best = 0;
    let bestCost = -1;
    for (let datagram = 0; datagram < DATAGRAMS; datagram++) {
      if (this.#state[datagram] === STATE.free) continue;
      let cost = 0;
      for (let other = 0; other < DATAGRAMS; other++) {
        const isTheirs =
          this.#state[other] !== STATE.free &&
          this.#isSource(other, this.#keys, datagram * KEY_WORDS);
        if (isTheirs) cost += 1 + this.#pieces[other]!;
      }
      const isOlder = cost === bestCost && this.#dueMs[datagram]! < this.#dueMs[best]!;
      if (cost > bestCost || isOlder) [best, bestCost] = [datagram, cost];
    }
    return best;
  }

  /**
   * The piece behind which a new one belongs, NONE for the front; REPEATED when it is there already; POISON when it overlaps
   * another, or contradicts what is known of the length.
   */
  #placeOf(datagram: number, offset: number, length: number, more: boolean): number {
    const end = offset + length;
    const total = this.#total[datagram]!;
    const tail = this.#tail[datagram]!;
    const isKnown = total !== UNKNOWN;
    if (isKnown && (end > total || (more && end === total) || (!more && end !== total)))
      return POISON;
    if (tail === NONE) return NONE;
    const lastEnd = this.#pieceOffset[tail]! + this.#pieceLength[tail]!;
    if (offset >= lastEnd) return tail;
    if (!more && lastEnd > end) return POISON;
    let before: number = NONE;
    let piece = this.#head[datagram]!;
    while (piece !== NONE && this.#pieceOffset[piece]! < offset) {
      before = piece;
      piece = this.#pieceNext[piece]!;
    }
    if (
      piece !== NONE &&
      this.#pieceOffset[piece] === offset &&
      this.#pieceLength[piece] === length
    ) {
      return REPEATED;
    }
    const overlapsBefore =
      before !== NONE && this.#pieceOffset[before]! + this.#pieceLength[before]! > offset;
    const overlapsNext = piece !== NONE && this.#pieceOffset[piece]! < end;
    return overlapsBefore || overlapsNext ? POISON : before;
  }

  /** A free piece for `datagram`, from another one when need be. False when it has more than it may. */
  #makeRoom(datagram: number): boolean {
    if (this.#framesMax === 0) return false;
    if (this.#pieces[datagram] === NET_LIMITS.reassemblyPiecesMax) {
      this.#link.counters.reassemblyRefused++;
      this.#poison(datagram);
      return false;
    }
    const isOverShare = this.#framesOfSource(datagram) >= this.#sourceFramesMax;
    if (!isOverShare && this.#frames < this.#framesMax) return true;
    let victim: number = NONE;
    if (isOverShare) {
      for (let other = 0; other < DATAGRAMS; other++) {
        const isCandidate =
          other !== datagram &&
          this.#pieces[other]! > 0 &&
          this.#state[other] === STATE.waiting &&
          this.#isSource(other, this.#keys, datagram * KEY_WORDS);
        if (isCandidate && (victim === NONE || this.#dueMs[other]! < this.#dueMs[victim]!))
          victim = other;
      }
    } else victim = this.#greediest();
    // Nothing to give up but itself.
    if (victim === NONE || victim === datagram) {
      this.#displace(datagram);
      return false;
    }
    this.#displace(victim);
    return this.#frames < this.#framesMax;
  }

  #insert(
    datagram: number,
    before: number,
    frame: number,
    payloadAt: number,
    offset: number,
    length: number,
  ): void {
    const piece = this.#freePiece;
    assert(piece !== NONE, 'a piece is free when frames are');
    this.#freePiece = this.#pieceNext[piece]!;
    this.#link.take(frame);
    this.#pieceFrame[piece] = frame;
    this.#pieceAt[piece] = payloadAt;
    this.#pieceOffset[piece] = offset;
    this.#pieceLength[piece] = length;
    const next = before === NONE ? this.#head[datagram]! : this.#pieceNext[before]!;
    this.#pieceNext[piece] = next;
    if (before === NONE) this.#head[datagram] = piece;
    else this.#pieceNext[before] = piece;
    if (next === NONE) this.#tail[datagram] = piece;
    this.#bytes[datagram]! += length;
    this.#pieces[datagram]!++;
    this.#frames++;
  }

  /** Everything is there, in order and without a gap. The first frame goes back in hand, the others to the pool. */
  #finish(datagram: number): FragmentOutcome {
    const link = this.#link;
    const first = this.#head[datagram]!;
    const total = this.#total[datagram]!;
    const frame = this.#pieceFrame[first]!;
    const payloadAt = this.#pieceAt[first]!;
    const isInFrame = link.roomFrom(payloadAt) >= total;
    if (!isInFrame && this.gathered.length === 0) this.gathered = new Uint8Array(PAYLOAD_MAX + 1);
    const to = isInFrame ? link.u8 : this.gathered;
    const base = isInFrame ? payloadAt : 0;
    let filled = 0;
    for (let piece = first; piece !== NONE; piece = this.#pieceNext[piece]!) {
      const [at, length] = [this.#pieceAt[piece]!, this.#pieceLength[piece]!];
      assert(this.#pieceOffset[piece] === filled, 'pieces stand in order without a gap');
      if (isInFrame && piece !== first) link.u8.copyWithin(base + filled, at, at + length);
      else if (!isInFrame) to.set(link.u8.subarray(at, at + length), filled);
      filled += length;
    }
    this.#forget(datagram, true);
    link.inHand = frame;
    link.counters.reassembled++;
    this.frame = frame;
    this.payloadAt = payloadAt;
    this.length = total;
    return isInFrame ? FRAGMENT.frame : FRAGMENT.gathered;
  }

  #expire(datagram: number): void {
    const link = this.#link;
    link.counters.reassemblyTimeout++;
    const first = this.#head[datagram]!;
    const hasFirst = first !== NONE && this.#pieceOffset[first] === 0;
    if (hasFirst && this.onExpired !== null) {
      const [frame, at] = [this.#pieceFrame[first]!, this.#pieceAt[first]!];
      const isIpv6 = (this.#keys[datagram * KEY_WORDS + KEY.protocol]! & KEY_IPV6) !== 0;
      this.#forget(datagram, true);
      const held = link.inHand;
      link.inHand = frame;
      this.onExpired(frame, at, isIpv6);
      link.settle();
      link.inHand = held;
    } else this.#forget(datagram);
  }

  #displace(datagram: number): void {
    this.#link.counters.reassemblyFull++;
    this.#forget(datagram);
  }

  #poison(datagram: number): void {
    this.#freePieces(datagram, false);
    this.#state[datagram] = STATE.poisoned;
  }

  #forget(datagram: number, exceptFirst = false): void {
    this.#freePieces(datagram, exceptFirst);
    this.#state[datagram] = STATE.free;
    this.#count--;
  }

  /** The frames of all pieces back to the pool, but not the first one's when the caller takes it. */
  #freePieces(datagram: number, exceptFirst: boolean): void {
    let piece = this.#head[datagram]!;
    for (let isFirst = true; piece !== NONE; isFirst = false) {
      const next = this.#pieceNext[piece]!;
      if (!(isFirst && exceptFirst)) this.#link.queue.free(this.#pieceFrame[piece]!);
      this.#pieceNext[piece] = this.#freePiece;
      this.#freePiece = piece;
      this.#frames--;
      piece = next;
    }
    this.#head[datagram] = NONE;
    this.#tail[datagram] = NONE;
    this.#pieces[datagram] = 0;
  }
}

/** What `#placeOf` says besides a piece. */
const REPEATED = -2;
const POISON = -3;
