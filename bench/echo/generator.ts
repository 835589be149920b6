/**
 * The traffic source of `arrakis bench echo`: UDP requests from one queue, and what comes back counted and timed.
 * It is cheaper than any server it measures: a request is 16 words copied from a template into the frame that the
 * last answer came in.
 *
 * Every payload carries a magic word, a sequence number and its complement, so the UDP checksum is the same for all
 * and an answer is recognised whoever sent it, with or without swapped addresses.
 */
import { assert } from '../../src/base/assert.ts';
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { type EchoEndpoints, FRAME_LEN, isAnswer, requestTemplate, SEQUENCE } from './frame.ts';

const BATCH = 64;
/** A request unanswered for this long is lost. */
const LOST_MS = 20;
const CLOCK_EVERY = 64;

export interface Saturation {
  packetsPerSecond: number;
  sent: number;
  answered: number;
  lost: number;
}

export class EchoGenerator {
  readonly #queue: NicQueue;
  /** By flow; their number is a power of two. Requests go round. */
  readonly #templates: readonly Uint32Array[];
  readonly #flowMask: number;
  readonly #frames = new Uint32Array(BATCH);
  readonly #lengths = new Uint16Array(BATCH);
  readonly #relax: () => void;
  #sequence = 0;

  /** `relax` is called when a poll found nothing: `sched_yield` where device and generator share a core. */
  constructor(queue: NicQueue, flows: readonly EchoEndpoints[], relax: () => void = () => {}) {
    assert(
      flows.length > 0 && (flows.length & (flows.length - 1)) === 0,
      'a power of two of flows',
    );
    this.#queue = queue;
    this.#templates = flows.map(requestTemplate);
    this.#flowMask = flows.length - 1;
    this.#relax = relax;
  }

  /** Ask until the first answer comes: true, or false after `timeoutMs`. The server is up when it is true. */
  probe(timeoutMs: number): boolean {
    const end = performance.now() + timeoutMs;
    while (performance.now() < end) {
      if (this.#roundTrip(LOST_MS) >= 0) return true;
    }
    return false;
  }

  /** `count` round trips, one in flight: microseconds each. Lost ones are left out and counted. */
  roundTrips(count: number): { microseconds: Float64Array; lost: number } {
    const microseconds = new Float64Array(count);
    let done = 0;
    let lost = 0;
    while (done < count && lost <= count) {
      const elapsedMs = this.#roundTrip(LOST_MS);
      if (elapsedMs < 0) lost++;
      else microseconds[done++] = elapsedMs * 1000;
    }
    return { microseconds: microseconds.subarray(0, done), lost };
  }

  /** Keep `window` requests in flight for `durationMs`: the rate of answers, after a tenth of it as warm-up. */
  saturate(durationMs: number, window: number): Saturation {
    const begin = performance.now();
    const from = begin + durationMs * 0.1;
    const end = begin + durationMs;
    let now = begin;
    let measuredFrom = 0;
    let sent = 0;
    let answered = 0;
    let lost = 0;
    let inFlight = 0;
    let lastAnswer = begin;
    let answeredBefore = 0;
    for (let turn = 0; now < end; turn++) {
      const got = this.#receive();
      answered += got;
      inFlight = Math.max(0, inFlight - got);
      const put = this.#send(Math.min(BATCH, window - inFlight));
      sent += put;
      inFlight += put;
      if (got === 0 && put === 0) this.#relax();
      if (turn % CLOCK_EVERY !== 0 && got === 0) continue;
      now = performance.now();
      if (got > 0) lastAnswer = now;
      else if (now - lastAnswer > LOST_MS) {
        lost += inFlight;
        inFlight = 0;
        lastAnswer = now;
      }
      if (measuredFrom === 0 && now >= from) {
        measuredFrom = now;
        answeredBefore = answered;
      }
    }
    this.#drain();
    const seconds = (now - measuredFrom) / 1000;
    return { packetsPerSecond: (answered - answeredBefore) / seconds, sent, answered, lost };
  }

  /** One request and its answer: milliseconds, or -1 when none came in `timeoutMs`. */
  #roundTrip(timeoutMs: number): number {
    const begin = performance.now();
    while (this.#send(1) === 0) {
      this.#receive();
      if (performance.now() - begin > timeoutMs) return -1;
    }
    for (;;) {
      if (this.#receive() > 0) return performance.now() - begin;
      if (performance.now() - begin > timeoutMs) return -1;
      this.#relax();
    }
  }

  /** Send up to `count` requests: how many the queue took. */
  #send(count: number): number {
    const queue = this.#queue;
    queue.reclaim(BATCH);
    let ready = 0;
    for (; ready < count; ready++) {
      const frame = queue.alloc();
      if (frame === NO_FRAME) break;
      this.#write(frame);
      this.#frames[ready] = frame;
      this.#lengths[ready] = FRAME_LEN;
    }
    if (ready === 0) {
      queue.kick();
      return 0;
    }
    const taken = queue.txBatch(this.#frames, this.#lengths, ready);
    for (let i = taken; i < ready; i++) queue.free(this.#frames[i]!);
    queue.kick();
    return taken;
  }

  #write(frame: number): void {
    const sequence = this.#sequence++ >>> 0;
    const memory = this.#queue.memory;
    const template = this.#templates[sequence & this.#flowMask]!;
    if ((frame & 3) === 0) {
      const words = memory.u32;
      const at = frame >>> 2;
      for (let i = 0; i < FRAME_LEN / 4; i++) words[at + i] = template[i]!;
      words[at + SEQUENCE / 4] = sequence;
      words[at + SEQUENCE / 4 + 1] = ~sequence;
      return;
    }
    // Little-endian, as requestTemplate lays it out.
    for (let i = 0; i < FRAME_LEN; i++) memory.u8[frame + i] = template[i >> 2]! >>> ((i & 3) * 8);
    memory.view.setUint32(frame + SEQUENCE, sequence, true);
    memory.view.setUint32(frame + SEQUENCE + 4, ~sequence, true);
  }

  /** Take what arrived: how many of them were answers. */
  #receive(): number {
    const queue = this.#queue;
    const count = queue.rxBatch(this.#frames, this.#lengths, BATCH);
    let answers = 0;
    for (let i = 0; i < count; i++) {
      const frame = this.#frames[i]!;
      if (isAnswer(queue.memory.view, frame, this.#lengths[i]!)) answers++;
      queue.free(frame);
    }
    return answers;
  }

  /** Take late answers, so that the next measurement does not count them. */
  #drain(): void {
    const end = performance.now() + LOST_MS;
    while (performance.now() < end) {
      this.#receive();
      this.#queue.reclaim(BATCH);
    }
  }
}
