/**
 * How much a VNIC, or a queue of one, may send or receive: a limit in bits and in packets a second, and a weight.
 *
 * - Bits are those of whole frames, Ethernet header included, without FCS, preamble and gap.
 * - Under both limits, a frame takes the longer of two times: that of its bits and that of one packet. Neither limit
 *   is ever exceeded; mixed sizes get a little less than either alone.
 * - BURST_US of the limit may come at once after a pause. Devices make a pacer (`softnic/rate.ts`) or an XDP program
 *   of it.
 * - The weight divides what senders share (`softnic/schedule.ts`); it means nothing alone.
 *
 * People write rates as `100M`, `2500k`, `10G`: decimal units.
 */
import { z } from 'zod';
import { ArrakisError } from '../base/errors.ts';

/** What a limited sender or receiver may have saved up, as time at its limit. */
export const BURST_US = 10_000;
export const BITS_PER_SECOND_MIN = 1_000;
export const BITS_PER_SECOND_MAX = 1e12;
export const PACKETS_PER_SECOND_MAX = 1e9;
export const WEIGHT_MAX = 100;
const QUEUE_MAX = 4095;

export interface RateLimit {
  /** Null: not limited. */
  readonly bitsPerSecond: number | null;
  readonly packetsPerSecond: number | null;
}

export interface Rate extends RateLimit {
  /** Share of what is contended for, beside the others' weights. */
  readonly weight: number;
}

export const DIRECTIONS = ['send', 'receive'] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** What is set for a VNIC, or for one of its queues, in one direction. */
export interface RateSetting extends Rate {
  /** Null: the VNIC, all its queues together. */
  readonly queue: number | null;
  readonly direction: Direction;
}

export const UNLIMITED: Rate = { bitsPerSecond: null, packetsPerSecond: null, weight: 1 };

/** The gates for rates that come from another process. */
export const bitsPerSecondSchema = z.int().min(BITS_PER_SECOND_MIN).max(BITS_PER_SECOND_MAX);
export const packetsPerSecondSchema = z.int().min(1).max(PACKETS_PER_SECOND_MAX);
export const weightSchema = z.int().min(1).max(WEIGHT_MAX);
export const limitSchema = z.strictObject({
  bitsPerSecond: bitsPerSecondSchema.nullable(),
  packetsPerSecond: packetsPerSecondSchema.nullable(),
}) satisfies z.ZodType<RateLimit>;

export const isLimited = (limit: RateLimit): boolean =>
  limit.bitsPerSecond !== null || limit.packetsPerSecond !== null;

/** Whether `rate` says anything that the default does not. */
export const isDefault = (rate: Rate): boolean => !isLimited(rate) && rate.weight === 1;

/** Whether `limit` allows no more than `most`, in bits and in packets. */
export function isWithin(limit: RateLimit, most: RateLimit): boolean {
  const below = (a: number | null, b: number | null) => b === null || (a !== null && a <= b);
  return (
    below(limit.bitsPerSecond, most.bitsPerSecond) &&
    below(limit.packetsPerSecond, most.packetsPerSecond)
  );
}

/** The gate for settings; a weight divides what is sent, receivers have none. */
export const rateSettingSchema = z
  .strictObject({
    queue: z.int().min(0).max(QUEUE_MAX).nullable(),
    direction: z.enum(DIRECTIONS),
    ...limitSchema.shape,
    weight: weightSchema,
  })
  .refine((s) => s.direction === 'send' || s.weight === 1, {
    path: ['weight'],
    message: 'a weight is for sending',
  }) satisfies z.ZodType<RateSetting>;

/** Whether two settings are of the same thing: the later replaces the earlier. */
export const isSameTarget = (a: RateSetting, b: RateSetting): boolean =>
  a.queue === b.queue && a.direction === b.direction;

/** Microseconds that one byte, and one frame, take at `limit`; 0 where there is none. */
export function costsUs(limit: RateLimit): { perByte: number; perFrame: number } {
  const { bitsPerSecond, packetsPerSecond } = limit;
  return {
    perByte: bitsPerSecond === null ? 0 : 8e6 / bitsPerSecond,
    perFrame: packetsPerSecond === null ? 0 : 1e6 / packetsPerSecond,
  };
}

const UNITS = { '': 1, k: 1e3, M: 1e6, G: 1e9 } as const;

/** `100M` as a number of something a second. Throws ARK_BAD_ARGUMENT for what is not a positive whole number of it. */
export function parseRate(text: string, what: string): number {
  const match = /^(\d{1,12}(?:\.\d{1,9})?)([kMG]?)$/.exec(text);
  const value = match === null ? 0 : Number(match[1]) * UNITS[match[2] as keyof typeof UNITS];
  const rounded = Math.round(value);
  if (rounded > 0 && Math.abs(value - rounded) < 1e-3) return rounded;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${what} "${text}" is not a rate`, {
    hint: 'write a positive number, with k, M or G: 64k, 100M, 2.5G',
  });
}

/** The shortest text that `parseRate` reads back. */
export function formatRate(value: number): string {
  for (const unit of ['G', 'M', 'k'] as const) {
    if (value >= UNITS[unit] && value % UNITS[unit] === 0) return `${value / UNITS[unit]}${unit}`;
  }
  return String(value);
}

/** `100M bit/s, 50k packets/s, weight 3`; `unlimited` for the default. */
export function formatLimits(rate: Rate): string {
  const parts: string[] = [];
  if (rate.bitsPerSecond !== null) parts.push(`${formatRate(rate.bitsPerSecond)} bit/s`);
  if (rate.packetsPerSecond !== null) parts.push(`${formatRate(rate.packetsPerSecond)} packets/s`);
  if (parts.length === 0) parts.push('unlimited');
  if (rate.weight !== 1) parts.push(`weight ${rate.weight}`);
  return parts.join(', ');
}
