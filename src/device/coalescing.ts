/**
 * Coalescing of a doorbell: a sleeper is not rung for every frame, but for several at once.
 *
 * - A frame waits at most `usecs` for its ring; 0 rings at once, which is the default.
 * - `frames` that wait ring at once, however long they have; 0: only the time counts.
 */
import { z } from 'zod';

/** Longer than this is no doorbell any more. */
export const COALESCE_US_MAX = 1_000_000;
export const COALESCE_FRAMES_MAX = 1024;

export interface Coalescing {
  readonly usecs: number;
  readonly frames: number;
}

export const NOT_COALESCED: Coalescing = { usecs: 0, frames: 0 };

/** The gate for what comes from another process. */
export const coalescingSchema = z.strictObject({
  usecs: z.int().min(0).max(COALESCE_US_MAX),
  frames: z.int().min(0).max(COALESCE_FRAMES_MAX),
}) satisfies z.ZodType<Coalescing>;
