/**
 * The traffic of `arrakis bench protection`: 64-byte UDP packets between two queues of this thread.
 *
 * What is sent is cheap: a frame that still holds this end's packet only gets a new sequence number. So it is the device
 * that the packets wait for. Each end's packets carry its mark, and nothing else is counted.
 */
import { assert } from '../../src/base/assert.ts';
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { cpuTimeNs, threadClock } from '../../src/ffi/clock.ts';
import { type EchoEndpoints, FRAME_LEN, requestTemplate, SEQUENCE } from '../echo/frame.ts';
import { percentile } from '../stats.ts';

const BATCH = 64;
/** Byte of the frame at which its sender's mark stands, before the sequence number. */
const MARK = SEQUENCE - 4;
const UDP_CHECKSUM = 40;
const LOST_MS = 20;
const QUIET_MS = 5;
const CLOCK_EVERY = 16;
const WARM_PART = 0.1;
const OWN = threadClock(0);

export interface Saturation {
  packetsPerSecond: number;
  /** Processor time of the device, nanoseconds a packet. */
  serviceNs: number;
  /** Part of the turns that found nothing to do: the device is what limits. */
  waiting: number;
  /** Part of the time in which this thread, and the device, had their processors: the lesser of the two. */
  share: number;
}

/** `e` as the other end has it. */
export const reversed = (e: EchoEndpoints): EchoEndpoints => ({
  sourceMac: e.destinationMac,
  destinationMac: e.sourceMac,
  sourceAddress: e.destinationAddress,
  destinationAddress: e.sourceAddress,
  sourcePort: e.destinationPort,
  destinationPort: e.sourcePort,
});

/** One end: its queue, and the packet that it sends. */
class End {
  readonly queue: NicQueue;
  readonly mark: number;
  /** Sent, and not arrived yet. */
  inFlight = 0;
  readonly #words: Uint32Array;
  readonly #frames = new Uint32Array(BATCH);
  readonly #lengths = new Uint16Array(BATCH).fill(FRAME_LEN);
  readonly #received = new Uint32Array(BATCH);
  readonly #receivedLengths = new Uint16Array(BATCH);
  #sequence = 0;

  constructor(queue: NicQueue, endpoints: EchoEndpoints, mark: number) {
    assert((queue.memory.headroom & 3) === 0, 'frames begin on a word');
    this.queue = queue;
    this.mark = mark;
    this.#words = requestTemplate(endpoints);
    this.#words[MARK / 4] = mark;
    // None: RFC 768 allows it.
    new DataView(this.#words.buffer).setUint16(UDP_CHECKSUM, 0);
  }

  /** Send up to `count` packets, at most a batch: how many the queue took. */
  send(count: number): number {
    const { queue, mark } = this;
    const { u32 } = queue.memory;
    queue.reclaim(BATCH);
    let ready = 0;
    for (; ready < count && ready < BATCH; ready++) {
      const frame = queue.alloc();
      if (frame === NO_FRAME) break;
      const word = frame >>> 2;
      if (u32[word + MARK / 4] !== mark) this.#write(u32, word);
      u32[word + SEQUENCE / 4] = this.#sequence++;
      this.#frames[ready] = frame;
    }
    const taken = ready === 0 ? 0 : queue.txBatch(this.#frames, this.#lengths, ready);
    for (let i = taken; i < ready; i++) queue.free(this.#frames[i]!);
    queue.kick();
    this.inFlight += taken;
    return taken;
  }

  #write(u32: Uint32Array, word: number): void {
    for (let i = 0; i < FRAME_LEN / 4; i++) u32[word + i] = this.#words[i]!;
  }

  /** Take up to a batch of what arrived: how many packets of `sender`. */
  receive(sender: End): number {
    const { queue } = this;
    const { u32 } = queue.memory;
    const count = queue.rxBatch(this.#received, this.#receivedLengths, BATCH);
    let packets = 0;
    for (let i = 0; i < count; i++) {
      const frame = this.#received[i]!;
      if (u32[(frame + MARK) >>> 2] === sender.mark) packets++;
      queue.free(frame);
    }
    // Some may have been given up before.
    sender.inFlight = Math.max(0, sender.inFlight - packets);
    return packets;
  }
}

export class Traffic {
  readonly #a: End;
  readonly #b: End;
  readonly #cpuNs: () => number;

  /** `forth` is what `a` sends. `cpuNs`: nanoseconds of processor time that the device has used. */
  constructor(a: NicQueue, b: NicQueue, forth: EchoEndpoints, cpuNs: () => number) {
    this.#a = new End(a, forth, 0x41524b31);
    this.#b = new End(b, reversed(forth), 0x41524b32);
    this.#cpuNs = cpuNs;
  }

  /** Keep `window` packets under way from `a` to `b`, and with `both` as many back, for `ms`. */
  saturate(ms: number, window: number, both: boolean): Saturation {
    const a = this.#a;
    const b = this.#b;
    let now = performance.now();
    const warm = now + ms * WARM_PART;
    const end = now + ms;
    let last = now;
    let from = 0;
    let fromNs = 0;
    let ownFromNs = 0;
    let packets = 0;
    let idle = 0;
    let turns = 0;
    for (let turn = 0; now < end; turn++) {
      const sent = a.send(window - a.inFlight) + (both ? b.send(window - b.inFlight) : 0);
      const arrived = b.receive(a) + (both ? a.receive(b) : 0);
      packets += arrived;
      turns++;
      if (sent + arrived === 0) idle++;
      if (turn % CLOCK_EVERY !== 0) continue;
      now = performance.now();
      if (arrived > 0) last = now;
      else if (now - last > LOST_MS) a.inFlight = b.inFlight = 0;
      if (from === 0 && now >= warm) {
        from = now;
        fromNs = this.#cpuNs();
        ownFromNs = cpuTimeNs(OWN);
        packets = turns = idle = 0;
      }
    }
    const cpuNs = this.#cpuNs() - fromNs;
    const elapsedNs = (now - from) * 1e6;
    const share = Math.min(cpuNs, cpuTimeNs(OWN) - ownFromNs) / elapsedNs;
    const serviceNs = cpuNs / packets;
    const packetsPerSecond = (packets * 1e9) / elapsedNs;
    this.#drain();
    return { packetsPerSecond, serviceNs, waiting: idle / turns, share };
  }

  /** `count` times from `a` to `b` and back, one packet under way: the median, microseconds. */
  roundTrips(count: number): number {
    const microseconds = new Float64Array(count);
    let done = 0;
    for (let lost = 0; done < count && lost < count; ) {
      const begin = performance.now();
      if (!this.#pass(this.#a, this.#b, begin) || !this.#pass(this.#b, this.#a, begin)) lost++;
      else microseconds[done++] = (performance.now() - begin) * 1000;
    }
    return percentile(microseconds.subarray(0, done).sort(), 0.5);
  }

  #pass(from: End, to: End, begin: number): boolean {
    from.send(1);
    while (to.receive(from) === 0) if (performance.now() - begin > LOST_MS) return false;
    return true;
  }

  /** Take late packets, so that the next measurement does not count them. */
  #drain(): void {
    const end = performance.now() + QUIET_MS;
    while (performance.now() < end) {
      this.#a.receive(this.#b);
      this.#b.receive(this.#a);
    }
    this.#a.inFlight = this.#b.inFlight = 0;
  }
}
