/** `arrakis top`: live rates of every VNIC, and what the device processes cost. */
import type { Command } from 'commander';
import { connect, type Domain } from '../../arrakis/index.ts';
import { type Snapshot, takeSnapshot } from '../snapshot.ts';
import { CpuMeter } from '../top/cpu.ts';
import { vnicRates } from '../top/rates.ts';
import { type TopView, topScreen } from '../top/screen.ts';
import { wholeNumber } from '../whole-number.ts';

const WIDTH_ELSEWHERE = 80;
const INTERVAL_S_MAX = 3600;
/** Alternate screen without cursor, and back (xterm control sequences). */
const ENTER_SCREEN = '\x1b[?1049h\x1b[?25l';
const LEAVE_SCREEN = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

interface TopOptions {
  interval: number;
  count?: number;
  json?: boolean;
}

export function registerTop(program: Command): void {
  program
    .command('top')
    .description(
      'live rates of every VNIC, drops by reason, and what the device processes cost; q ends it',
    )
    .option('--interval <s>', 'seconds between two looks', wholeNumber, 1)
    .option('--count <n>', 'end after so many looks (default: at q or Ctrl-C)', wholeNumber)
    .option('--json', 'one JSON object per look and line')
    .action(top);
}

async function top(options: TopOptions): Promise<void> {
  const intervalMs = Math.min(Math.max(options.interval, 1), INTERVAL_S_MAX) * 1000;
  const screen = process.stdout.isTTY === true && options.json !== true;
  const domain = await connect({ name: 'arrakis-top' });
  const over = untilStopped(domain);
  if (screen) process.stdout.write(ENTER_SCREEN);
  if (screen) readKeys(() => process.emit('SIGINT'));
  try {
    const meter = new CpuMeter();
    let before = await look(domain, meter);
    for (let n = 0; n < (options.count ?? Number.POSITIVE_INFINITY); n++) {
      if (await Promise.race([over, sleep(intervalMs)])) break;
      const now = await look(domain, meter);
      const view = viewOf(before, now);
      before = now;
      if (options.json) process.stdout.write(`${JSON.stringify(view)}\n`);
      else show(view, screen);
    }
  } finally {
    if (screen) process.stdout.write(LEAVE_SCREEN);
    readKeys(null);
    await domain.close();
  }
}

interface Look {
  readonly atMs: number;
  readonly snapshot: Snapshot;
  /** By process id. */
  readonly cpu: ReadonlyMap<number, number | null>;
  readonly daemonPid: number;
}

async function look(domain: Domain, meter: CpuMeter): Promise<Look> {
  const snapshot = await takeSnapshot(domain);
  const atMs = performance.now();
  const daemonPid = domain.info.pid;
  const pids = [daemonPid, ...snapshot.devices.map((d) => d.pid)];
  return { atMs, snapshot, daemonPid, cpu: new Map(pids.map((p) => [p, meter.share(p, atMs)])) };
}

function viewOf(before: Look, now: Look): TopView {
  const share = (pid: number): number | null => now.cpu.get(pid) ?? null;
  return {
    time: new Date().toTimeString().slice(0, 8),
    daemonCpu: share(now.daemonPid),
    devices: now.snapshot.devices.map((d) => ({ ...d, cpu: share(d.pid) })),
    vnics: vnicRates(before.snapshot, now.snapshot, (now.atMs - before.atMs) / 1000),
  };
}

function show(view: TopView, screen: boolean): void {
  const { columns, rows } = process.stdout;
  const lines = topScreen(
    view,
    screen ? columns : WIDTH_ELSEWHERE,
    screen ? rows - 2 : Number.POSITIVE_INFINITY,
  );
  if (!screen) process.stdout.write(`${lines.join('\n')}\n\n`);
  else {
    const picture = [...lines, 'q: quit'].join(`${CLEAR_LINE}\n`);
    process.stdout.write(`${HOME}${picture}${CLEAR_LINE}\n${CLEAR_BELOW}`);
  }
}

/** Call `quit` when q or Ctrl-C is typed, in a terminal; null: the keys are the terminal's again. */
function readKeys(quit: (() => void) | null): void {
  const { stdin } = process;
  if (stdin.isTTY !== true) return;
  stdin.setRawMode(quit !== null);
  if (quit === null) {
    stdin.pause();
    return;
  }
  stdin.setEncoding('utf8').on('data', (keys) => {
    // In raw mode Ctrl-C is a key, U+0003.
    if (['q', 'Q', '\u0003'].some((key) => String(keys).includes(key))) quit();
  });
}

/** Resolves with true when the user or the daemon ends it. */
function untilStopped(domain: Domain): Promise<true> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve(true));
    process.once('SIGTERM', () => resolve(true));
    domain.once('control-lost', () => resolve(true));
  });
}

const sleep = (ms: number): Promise<false> =>
  new Promise((resolve) => setTimeout(() => resolve(false), ms));
