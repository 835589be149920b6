/** Live counters: one line, rewritten in a terminal, printed now and then elsewhere. */
import type { Domain } from '../../arrakis/index.ts';
import { type CounterValues, counterOf, dropsOf, takeSnapshot } from '../snapshot.ts';
import { formatNumber } from '../table.ts';

const TERMINAL_EVERY_MS = 1_000;
const ELSEWHERE_EVERY_MS = 10_000;

/** Show what the VNICs moved until `signal` is aborted or the daemon goes. */
export async function watchCounters(domain: Domain, signal: AbortSignal): Promise<void> {
  const terminal = process.stdout.isTTY === true;
  let over = false;
  const finished = Promise.race([
    new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve());
      if (signal.aborted) resolve();
    }),
    new Promise<void>((resolve) => domain.once('control-lost', () => resolve())),
  ]).then(() => {
    over = true;
  });
  while (!over) {
    const { stats } = await takeSnapshot(domain);
    const line = stats.map(({ name, counters }) => describe(name, counters)).join('   ');
    if (line !== '') process.stdout.write(terminal ? `\r\x1b[K${line}` : `${line}\n`);
    await Promise.race([finished, sleep(terminal ? TERMINAL_EVERY_MS : ELSEWHERE_EVERY_MS)]);
  }
  if (terminal) process.stdout.write('\n');
}

function describe(name: string, counters: CounterValues): string {
  const dropped = dropsOf(counters).reduce((sum, [, count]) => sum + count, 0);
  const count = (key: string): string => formatNumber(counterOf(counters, key));
  return `${name}: ${count('rxPackets')} received, ${count('txPackets')} sent, ${formatNumber(dropped)} dropped`;
}

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms).unref());
