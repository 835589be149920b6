/**
 * Is what is said to be off really off, and what is on, on? Each contestant is asked before it is measured: with packets
 * that only get through, or with counters that only count, when the mechanism is there or is not.
 */
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import type { Direction } from '../../src/device/rate.ts';
import { type EchoEndpoints, FRAME_LEN, requestTemplate, SEQUENCE } from '../echo/frame.ts';
import { reversed } from './traffic.ts';

/** What holds of a contestant; null where it has no such mechanism, on or off. */
export interface Findings {
  /** Packets under a foreign address are stopped. */
  stopsSpoofed: boolean | null;
  /** Packets for a port that is not the receiver's are stopped. */
  stopsForeign: boolean | null;
  /** Limits hold, when some are set. */
  limits: Record<Direction, boolean | null>;
  /** What passes is counted by the device. */
  counts: boolean | null;
}

/** A contestant as the probe needs it. `b` is the VNIC whose protection is measured. */
export interface Probed {
  readonly a: NicQueue;
  readonly b: NicQueue;
  /** What `a` sends. */
  readonly forth: EchoEndpoints;
  /** Packets a second, or null for as many as can be, of the VNIC `b`. Null: limits are not part of it. */
  readonly setLimit: ((direction: Direction, packetsPerSecond: number | null) => void) | null;
  /** Packets that `b` has received and sent, as its device counts; null: nobody counts. */
  readonly counted: (() => number) | null;
  /** Whether nothing checks what `b` sends by its nature. */
  readonly sendsUnchecked: boolean;
}

const ARRIVE_MS = 5000;
const LIMITED_MS = 60;
const SETTLE_MS = 20;
/** Packets a second; one of them may come at once. The burst then takes longer than it is waited for, by far. */
const LIMIT = 100;
const BURST = 64;
/** Neither this nor that end's. */
const FOREIGN_PORT = 9;
const FOREIGN_ADDRESS = 0x0a4d_00fe;
const BATCH = 64;
const frames = new Uint32Array(BATCH);
const lengths = new Uint16Array(BATCH);
let sequence = 1;

/** Send one packet; its sequence number. */
function send(queue: NicQueue, endpoints: EchoEndpoints): number {
  const end = performance.now() + ARRIVE_MS;
  const words = requestTemplate(endpoints);
  words[SEQUENCE / 4] = ++sequence;
  words[SEQUENCE / 4 + 1] = ~sequence;
  while (performance.now() < end) {
    queue.reclaim(BATCH);
    const frame = queue.alloc();
    if (frame === NO_FRAME) continue;
    queue.memory.u32.set(words, frame >>> 2);
    frames[0] = frame;
    lengths[0] = FRAME_LEN;
    const taken = queue.txBatch(frames, lengths, 1);
    if (taken === 0) queue.free(frame);
    queue.kick();
    if (taken === 1) return sequence;
  }
  throw new Error('no packet can be sent');
}

/** The sequence numbers that arrive until `isEnough`, or for `ms`. */
function receive(queue: NicQueue, ms: number, isEnough: (seen: Set<number>) => boolean) {
  const seen = new Set<number>();
  const end = performance.now() + ms;
  while (!isEnough(seen) && performance.now() < end) {
    const count = queue.rxBatch(frames, lengths, BATCH);
    for (let i = 0; i < count; i++) {
      seen.add(queue.memory.u32[(frames[i]! + SEQUENCE) >>> 2]!);
      queue.free(frames[i]!);
    }
  }
  return seen;
}

/** Whether `odd` does not arrive, though a proper packet behind it does. */
function isStopped(from: NicQueue, to: NicQueue, odd: EchoEndpoints, proper: EchoEndpoints) {
  const first = send(from, odd);
  const second = send(from, proper);
  const seen = receive(to, ARRIVE_MS, (all) => all.has(second));
  if (!seen.has(second)) throw new Error('a proper packet does not arrive');
  return !seen.has(first);
}

function isLimited(from: NicQueue, to: NicQueue, endpoints: EchoEndpoints): boolean {
  for (let i = 0; i < BURST; i++) send(from, endpoints);
  return receive(to, LIMITED_MS, (seen) => seen.size === BURST).size < BURST;
}

/** Let what was held back go, and forget it. */
const settle = (queue: NicQueue): void => void receive(queue, SETTLE_MS, () => false);

function limits({ a, b, forth, setLimit }: Probed, direction: Direction): boolean {
  setLimit!(direction, LIMIT);
  const [from, to] = direction === 'send' ? [b, a] : [a, b];
  const result = isLimited(from, to, direction === 'send' ? reversed(forth) : forth);
  setLimit!(direction, null);
  settle(to);
  return result;
}

export function probe(contestant: Probed): Findings {
  const { a, b, forth, setLimit, counted, sendsUnchecked } = contestant;
  const back = reversed(forth);
  const stopsSpoofed = sendsUnchecked
    ? null
    : isStopped(b, a, { ...back, sourceAddress: FOREIGN_ADDRESS }, back);
  const stopsForeign = isStopped(a, b, { ...forth, destinationPort: FOREIGN_PORT }, forth);
  const before = counted?.() ?? 0;
  isStopped(a, b, forth, forth);
  return {
    stopsSpoofed,
    stopsForeign,
    limits: {
      send: setLimit === null || sendsUnchecked ? null : limits(contestant, 'send'),
      receive: setLimit === null ? null : limits(contestant, 'receive'),
    },
    counts: counted === null ? null : counted() > before,
  };
}
