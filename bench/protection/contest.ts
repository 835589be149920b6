/** What the contestants of `arrakis bench protection` have in common: names, and messages between them and run.ts. */
import type { Findings, Probed } from './probe.ts';
import type { Saturation } from './traffic.ts';

/** One arrangement to be measured, in a process of its own. */
export interface Contestant extends Probed {
  /** Nanoseconds of processor time that its device has used. */
  readonly cpuNs: () => number;
  /** Packets under way in one direction. */
  readonly window: number;
  /** Whether both directions are loaded at once. */
  readonly both: boolean;
  close(): void;
}

export interface SliceJob {
  ms: number;
  roundTrips: number;
}

export interface SliceResult extends Saturation {
  /** Median round trip, microseconds. */
  rttUs: number;
}

/** What a contestant says first, once it is ready. */
export interface Ready {
  findings: Findings;
}

/** Far above what these packets make: it is charged, and never binds. */
export const HIGH_BITS_PER_SECOND = 1e12;
