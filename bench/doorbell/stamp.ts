/**
 * The time at which a packet was sent, in the packet: processes of one machine share the monotonic clock. A payload is
 * that of the echo benchmark, with the time where the sequence number is.
 */
import { FRAME_LEN, isAnswer, SEQUENCE } from '../echo/frame.ts';

/** Ethernet, IPv4 and UDP before the payload; a kernel socket sees what comes after. */
const HEADERS = 42;
const US_PER_S = 1e6;
const NS_PER_US = 1e3;

/** Port that receivers listen on. */
export const PORT = 7;
/** A receiver prints this when it can receive. */
export const READY = 'ready';
export const PAYLOAD_LEN = FRAME_LEN - HEADERS;

/** What a receiver prints at its end. */
export interface Wakeups {
  p50: number;
  p99: number;
  p999: number;
  count: number;
  /** Processor time of the receiver, in percent of the time it took. */
  cpu: number;
}

/** The monotonic clock in microseconds, the same in every process. */
export function nowUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * US_PER_S + nanoseconds / NS_PER_US;
}

/** Put the present time into the frame at `at`. */
export const stampFrame = (view: DataView, at: number): void =>
  view.setFloat64(at + SEQUENCE, nowUs());

/** Microseconds since the frame at `at` was stamped; -1 when it is none of ours. */
export const ageOfFrame = (view: DataView, at: number, length: number): number =>
  isAnswer(view, at, length) ? nowUs() - view.getFloat64(at + SEQUENCE) : -1;

export const stampPayload = (payload: Buffer): number =>
  payload.writeDoubleBE(nowUs(), SEQUENCE - HEADERS);

export const ageOfPayload = (payload: Buffer): number =>
  nowUs() - payload.readDoubleBE(SEQUENCE - HEADERS);
