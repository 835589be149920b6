/**
 * One deadline for each flow, in ticks of a millisecond: a hierarchical timing wheel (Varghese and Lauck 1987) whose
 * entries are threaded through typed arrays by the flow's id.
 *
 *   level 0: 256 slots of 1 ms   level 1: 64 of 256 ms   level 2: 64 of 16 s   level 3: 64 of 17 min
 *
 * - A deadline that moves away costs nothing: the entry stays, comes due early, and its owner schedules it again.
 * - Times are wrapping int32 milliseconds; deadlines lie within 12 hours (farther ones come due early).
 */
export const NOT_SCHEDULED = -1;
const NONE = -1;
const LEVEL0_BITS = 8;
const LEVEL_BITS = 6;
const LEVELS = 4;
const SLOTS = (1 << LEVEL0_BITS) + (LEVELS - 1) * (1 << LEVEL_BITS);
const FARTHEST_MS = 1 << 25;

const shiftOf = (level: number): number =>
  level === 0 ? 0 : LEVEL0_BITS + (level - 1) * LEVEL_BITS;
const maskOf = (level: number): number => (1 << (level === 0 ? LEVEL0_BITS : LEVEL_BITS)) - 1;
const firstOf = (level: number): number =>
  level === 0 ? 0 : (1 << LEVEL0_BITS) + (level - 1) * (1 << LEVEL_BITS);

export class TimerWheel {
  readonly #heads = new Int32Array(SLOTS).fill(NONE);
  readonly #counts = new Int32Array(LEVELS);
  #next = new Int32Array(0);
  #prev = new Int32Array(0);
  #slot = new Int16Array(0);
  #due = new Int32Array(0);
  #nowMs = 0;
  #isStarted = false;
  /** Entries in all. */
  count = 0;

  /** Room for ids below `size`. */
  grow(size: number): void {
    if (size <= this.#next.length) return;
    this.#next = grown(this.#next, size);
    this.#prev = grown(this.#prev, size);
    this.#due = grown(this.#due, size);
    const slots = new Int16Array(size).fill(NOT_SCHEDULED);
    slots.set(this.#slot);
    this.#slot = slots;
  }

  /** `id` comes due at `dueMs` or earlier: at the earlier one of this and what was scheduled before. */
  schedule(id: number, dueMs: number): void {
    if (this.#slot[id] !== NOT_SCHEDULED) {
      if (((this.#due[id]! - dueMs) | 0) <= 0) return;
      this.#unlink(id);
    }
    this.#due[id] = dueMs;
    this.#link(id);
  }

  cancel(id: number): void {
    if (this.#slot[id] !== NOT_SCHEDULED) this.#unlink(id);
  }

  /** Call `fire` with each id that is due by `nowMs`. It may schedule and cancel any. How many there were. */
  advance(nowMs: number, fire: (id: number) => void): number {
    if (!this.#isStarted) this.#start(nowMs);
    let fired = 0;
    while (((nowMs - this.#nowMs) | 0) > 0) {
      if (this.count === 0) {
        this.#nowMs = nowMs | 0;
        break;
      }
      this.#step(nowMs);
      const slot = this.#nowMs & maskOf(0);
      for (let id = this.#heads[slot]!; id !== NONE; id = this.#heads[slot]!) {
        this.#unlink(id);
        fire(id);
        fired++;
      }
    }
    return fired;
  }

  /** Milliseconds from the time of `advance` until something may be due, at most so; Infinity when nothing is scheduled. */
  get nextInMs(): number {
    if (this.count === 0) return Number.POSITIVE_INFINITY;
    let nearest = FARTHEST_MS;
    for (let level = 0; level < LEVELS; level++) {
      if (this.#counts[level] === 0) continue;
      const shift = shiftOf(level);
      const mask = maskOf(level);
      const position = this.#nowMs >> shift;
      for (let ahead = 1; ahead <= mask + 1; ahead++) {
        if (this.#heads[firstOf(level) + ((position + ahead) & mask)] === NONE) continue;
        nearest = Math.min(nearest, (((position + ahead) << shift) - this.#nowMs) | 0);
        break;
      }
    }
    return nearest;
  }

  /** Entries that were scheduled before the first `advance` know no time yet: take them over. */
  #start(nowMs: number): void {
    this.#isStarted = true;
    const ids: number[] = [];
    for (let id = 0; id < this.#slot.length; id++) {
      if (this.#slot[id] === NOT_SCHEDULED) continue;
      ids.push(id);
      this.#unlink(id);
    }
    this.#nowMs = nowMs | 0;
    for (const id of ids) this.#link(id);
  }

  /** One tick on, or to the end of level 0 when that is empty, but not beyond `nowMs`; entries come down a level. */
  #step(nowMs: number): void {
    const mask = maskOf(0);
    let step = 1;
    if (this.#counts[0] === 0) {
      const toEnd = mask + 1 - (this.#nowMs & mask);
      step = Math.min(toEnd, (nowMs - this.#nowMs) | 0);
    }
    this.#nowMs = (this.#nowMs + step) | 0;
    if ((this.#nowMs & mask) !== 0) return;
    for (let level = 1; level < LEVELS; level++) {
      const position = this.#nowMs >> shiftOf(level);
      this.#cascade(firstOf(level) + (position & maskOf(level)));
      if ((position & maskOf(level)) !== 0) return;
    }
  }

  #cascade(slot: number): void {
    let id = this.#heads[slot]!;
    while (id !== NONE) {
      const next = this.#next[id]!;
      this.#unlink(id);
      // What is due in this very tick belongs to the slot that `advance` looks at next.
      if (((this.#due[id]! - this.#nowMs) | 0) <= 0) this.#put(id, 0, this.#nowMs & maskOf(0));
      else this.#link(id);
      id = next;
    }
  }

  #link(id: number): void {
    const ahead = Math.min((this.#due[id]! - this.#nowMs) | 0, FARTHEST_MS);
    // The slot of this very tick is being emptied, or was.
    const dueMs = (this.#nowMs + Math.max(ahead, 1)) | 0;
    let level = 0;
    while (level < LEVELS - 1 && ahead >= 1 << shiftOf(level + 1)) level++;
    this.#put(id, level, firstOf(level) + ((dueMs >> shiftOf(level)) & maskOf(level)));
  }

  #put(id: number, level: number, slot: number): void {
    const head = this.#heads[slot]!;
    this.#next[id] = head;
    this.#prev[id] = NONE;
    if (head !== NONE) this.#prev[head] = id;
    this.#heads[slot] = id;
    this.#slot[id] = slot;
    this.#counts[level]!++;
    this.count++;
  }

  #unlink(id: number): void {
    const slot = this.#slot[id]!;
    const next = this.#next[id]!;
    const prev = this.#prev[id]!;
    if (prev === NONE) this.#heads[slot] = next;
    else this.#next[prev] = next;
    if (next !== NONE) this.#prev[next] = prev;
    this.#slot[id] = NOT_SCHEDULED;
    const level = slot <= maskOf(0) ? 0 : 1 + ((slot - firstOf(1)) >> LEVEL_BITS);
    this.#counts[level]!--;
    this.count--;
  }
}

function grown(old: Int32Array, size: number): Int32Array<ArrayBuffer> {
  const array = new Int32Array(size);
  array.set(old);
  return array;
}
