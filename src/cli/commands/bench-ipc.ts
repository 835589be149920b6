/** `arrakis bench ipc`: messages between two processes, beside Unix sockets and pipes. */
import type { Command } from 'commander';
import { benchIpc, IPC_DEFAULTS } from '../../../bench/ipc/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface IpcOptions extends BenchOptions {
  repetitions: number;
  roundTrips: number;
  messages: number;
  bytes: number;
  only?: string[];
}

export function registerBenchIpc(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, roundTrips, messages, bytes } = IPC_DEFAULTS;
  benchCommand(bench, 'ipc', 'messages between two processes: endpoints, Unix sockets and pipes')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--round-trips <n>', 'round trips of a run', wholeNumber, roundTrips)
    .option('--messages <n>', 'messages one way of a run', wholeNumber, messages)
    .option('--bytes <n>', 'bytes of a message, at least 4', wholeNumber, bytes)
    .option('--only <system...>', 'only these systems, such as c/unix')
    .action(runIpc);
}

const runIpc = ({ only = [], ...options }: IpcOptions): Promise<void> =>
  runBench(options, {
    measure: (progress) =>
      benchIpc({
        ...options,
        bytes: Math.max(4, options.bytes),
        warmup: IPC_DEFAULTS.warmup,
        only,
        progress,
      }),
    table: ipcTable,
  });

/** Each system on a line, beside the first one. */
function ipcTable(rows: readonly BenchRow[]): string {
  const trips = rows.filter(({ metric }) => metric === 'rtt');
  const lines = trips.map((trip) => {
    const rate = rows.find((row) => row.system === trip.system && row.metric === 'throughput')!;
    return [
      trip.system,
      formatNumber(trip.p50!, 2),
      formatNumber(trip.p99!, 2),
      formatNumber(trip.p999!, 2),
      `${formatNumber(trips[0]!.p50! / trip.p50!, 1)}x`,
      formatNumber(rate.value),
    ];
  });
  const heading = ['system', 'rtt p50 µs', 'p99', 'p99.9', 'faster', 'messages/s'];
  const notes = trips.map(({ system, boundBy }) => `  ${system}: ${boundBy}`).join('\n');
  return `${formatTable(heading, lines)}\n(faster: than ${trips[0]?.system ?? '-'})\n\nbound by\n${notes}`;
}
