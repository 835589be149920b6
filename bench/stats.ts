/** Figures of a benchmark: percentiles of samples, and the row that `--json` prints. */

/** One measured figure. `value` is the median over repetitions; `boundBy` says what limits it. */
export interface BenchRow {
  bench: string;
  /** `kernel/c`, `dpdk/testpmd`, `arrakis/af-xdp-direct`, ... */
  system: string;
  /** What the packets crossed: `veth`, `softnic`, `loopback`. */
  link: string;
  metric: string;
  unit: string;
  value: number;
  p50?: number;
  p99?: number;
  p999?: number;
  /** Lowest and highest of the repetitions. */
  low?: number;
  high?: number;
  params?: Record<string, number | string>;
  boundBy?: string;
}

/** The sample below which `fraction` of `sorted` (ascending) lies: nearest rank. */
export function percentile(sorted: Float64Array, fraction: number): number {
  if (sorted.length === 0) return Number.NaN;
  const rank = Math.ceil(fraction * sorted.length);
  return sorted[Math.min(sorted.length - 1, Math.max(0, rank - 1))]!;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** p50, p99 and p999 of unsorted samples, in the samples' unit. */
export function summarize(samples: Float64Array): { p50: number; p99: number; p999: number } {
  const sorted = samples.slice().sort();
  return {
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    p999: percentile(sorted, 0.999),
  };
}
