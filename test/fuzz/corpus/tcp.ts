/** Seeds of runs of tcp.test.ts that once found something, or that go where others do not: state, seed. */
import type { StateName } from '../tcp/host.ts';

export const TCP_SEEDS: readonly (readonly [StateName, number])[] = [
  ['established', 1],
  ['closing', 2],
  ['synReceived', 3],
];
