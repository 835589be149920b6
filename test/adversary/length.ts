/** How long the tests of this folder run: a minute or two together, or with ARRAKIS_ADVERSARY=long ten times as long. */
export const isLong = process.env.ARRAKIS_ADVERSARY === 'long';

/** Milliseconds of an attack that has no end of its own. */
export const durationMs = (ms: number): number => (isLong ? 10 * ms : ms);
