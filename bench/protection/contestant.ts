/**
 * A contestant's process: `contestant.js GROUP INDEX CPU`. It probes itself, says what it found, and then answers each
 * SliceJob on its standard input with a SliceResult on its standard output, one JSON object a line, until the input ends.
 */
import { createInterface } from 'node:readline';
import type { Ready, SliceJob, SliceResult } from './contest.ts';
import { groups } from './contestants.ts';
import { probe } from './probe.ts';
import { Traffic } from './traffic.ts';

const [group, index, cpu] = process.argv.slice(2).map(Number) as [number, number, number];
const say = (line: Ready | SliceResult): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const contestant = await groups()[group]![index]!.start(cpu);
try {
  const { a, b, forth, cpuNs, window, both } = contestant;
  say({ findings: probe(contestant) });
  const traffic = new Traffic(a, b, forth, cpuNs);
  for await (const line of createInterface({ input: process.stdin })) {
    const { ms, roundTrips } = JSON.parse(line) as SliceJob;
    const saturation = traffic.saturate(ms, window, both);
    say({ ...saturation, rttUs: traffic.roundTrips(roundTrips) });
  }
} finally {
  contestant.close();
}
