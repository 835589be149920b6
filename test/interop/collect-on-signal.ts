/** Preloaded by steady.test.ts with --expose-gc: SIGUSR2 empties the young generation, so a measurement begins at none. */
process.on('SIGUSR2', () => (globalThis as unknown as { gc(): void }).gc());
