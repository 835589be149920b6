/** `arrakis rate`: limits, weights and coalesced doorbells of VNICs, as they are and as they are to be. */
import type { Command } from 'commander';
import { connect, type ObjectInfo } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { DIRECTIONS, type Direction, formatRate, parseRate } from '../../device/rate.ts';
import { dropsOf, findObject, type Snapshot, takeSnapshot } from '../snapshot.ts';
import { type Cell, formatNumber, formatTable, printJson, printLine } from '../table.ts';

interface Row {
  vnic: number;
  name: string;
  /** Null: all queues together. */
  queue: number | null;
  direction: Direction;
  bitsPerSecond: number | null;
  packetsPerSecond: number | null;
  weight: number;
  enforcedBy: string | null;
}

interface Bell {
  vnic: number;
  name: string;
  pair: number;
  usecs: number;
  frames: number;
}

export function registerRate(program: Command): void {
  const rate = program
    .command('rate')
    .description('limits and weights of VNICs, and how their doorbells are coalesced');
  rate
    .command('ls')
    .description('what every VNIC may send and receive, and who enforces it')
    .option('--json', 'print it as JSON')
    .action(list);
  rate
    .command('set')
    .description('limit a VNIC, or a queue of it; what is not named stays as it is')
    .argument('<vnic>', 'name or number of the VNIC (arrakis ls)')
    .option('--rate <rate>', 'bits a second, such as 100M; none: no limit')
    .option('--pps <rate>', 'packets a second, such as 50k; none: no limit')
    .option('--weight <n>', 'share of what senders contend for, 1 to 100', positive)
    .option('--queue <n>', 'only this queue pair, from 0', index)
    .option('--direction <direction>', 'send or receive (default: both)', direction)
    .option('--json', 'print what is set then as JSON')
    .action(set);
  rate
    .command('coalesce')
    .description("ring a VNIC's doorbell for several frames at once")
    .argument('<vnic>', 'name or number of the VNIC (arrakis ls)')
    .requiredOption('--usecs <n>', 'how long a frame may wait for its ring; 0: not at all', index)
    .option('--frames <n>', 'do not wait for more than so many; 0: however many', index, 0)
    .option('--queue <n>', 'only this queue pair, from 0', index)
    .option('--json', 'print what is set then as JSON')
    .action(coalesce);
}

const isOf = (vnic: ObjectInfo) => (object: ObjectInfo) => object.detail.vnic === vnic.id;

/** Both directions of every VNIC, with what is set for its queues. */
function rowsOf({ objects }: Snapshot): Row[] {
  return objects
    .filter((object) => object.kind === 'vnic')
    .flatMap((vnic): Row[] => {
      const base = { vnic: vnic.id, name: vnic.name };
      const unlimited = { bitsPerSecond: null, packetsPerSecond: null, weight: 1 };
      const told = objects
        .filter((object) => object.kind === 'rate')
        .filter(isOf(vnic))
        .map(({ detail }) => ({ ...base, ...(detail as Omit<Row, 'name'>) }));
      const unset = DIRECTIONS.filter(
        (way) => !told.some((row) => row.queue === null && row.direction === way),
      ).map((way) => ({ ...base, queue: null, direction: way, ...unlimited, enforcedBy: null }));
      return [...told, ...unset].sort(
        (a, b) =>
          (a.queue ?? -1) - (b.queue ?? -1) ||
          DIRECTIONS.indexOf(a.direction) - DIRECTIONS.indexOf(b.direction),
      );
    });
}

/** The doorbells that are coalesced. */
function bellsOf({ objects }: Snapshot): Bell[] {
  return objects
    .filter((object) => object.kind === 'doorbell' && Number(object.detail.usecs) > 0)
    .map(({ detail }) => {
      const { vnic, pair, usecs, frames } = detail as unknown as Omit<Bell, 'name'>;
      const name = objects.find((object) => object.id === vnic)?.name ?? '';
      return { vnic, name, pair, usecs, frames };
    });
}

/** Frames beyond the limit, of each VNIC. */
const dropped = ({ stats }: Snapshot, vnic: number): number => {
  const counters = stats.find((entry) => entry.vnic === vnic)?.counters ?? {};
  return dropsOf(counters).find(([reason]) => reason === 'rateExceeded')?.[1] ?? 0;
};

function describe(snapshot: Snapshot, rows: readonly Row[], bells: readonly Bell[]): string {
  if (rows.length === 0) return 'no VNICs';
  const limit = (value: number | null): string => (value === null ? '-' : formatRate(value));
  const lines = rows.map((row): Cell[] => [
    row.vnic,
    row.name,
    row.queue ?? 'all',
    row.direction,
    limit(row.bitsPerSecond),
    limit(row.packetsPerSecond),
    row.direction === 'send' ? row.weight : '-',
    formatNumber(dropped(snapshot, row.vnic)),
    row.enforcedBy ?? '-',
  ]);
  const heading = ['VNIC', 'NAME', 'QUEUE', 'DIRECTION', 'BIT/S', 'PACKETS/S', 'WEIGHT'];
  const table = formatTable([...heading, 'DROPPED', 'ENFORCED BY'], lines);
  if (bells.length === 0) return table;
  const rings = bells.map(({ vnic, name, pair, usecs, frames }) => [
    vnic,
    name,
    pair,
    usecs,
    frames,
  ]);
  return `${table}\n\n${formatTable(['VNIC', 'NAME', 'QUEUE', 'USECS', 'FRAMES'], rings)}`;
}

function print(snapshot: Snapshot, json: boolean, only?: ObjectInfo): void {
  const wanted = (row: { vnic: number }): boolean => only === undefined || row.vnic === only.id;
  const rates = rowsOf(snapshot).filter(wanted);
  const doorbells = bellsOf(snapshot).filter(wanted);
  if (json) printJson({ rates, doorbells });
  else printLine(describe(snapshot, rates, doorbells));
}

async function list(options: { json?: boolean }): Promise<void> {
  const domain = await connect({ name: 'arrakis-rate' });
  try {
    print(await takeSnapshot(domain), options.json === true);
  } finally {
    await domain.close();
  }
}

interface SetOptions {
  rate?: string;
  pps?: string;
  weight?: number;
  queue?: number;
  direction?: Direction;
  json?: boolean;
}

async function set(wanted: string, options: SetOptions): Promise<void> {
  const { rate, pps, weight, queue } = options;
  if (rate === undefined && pps === undefined && weight === undefined) {
    throw new ArrakisError('ARK_USAGE', 'there is nothing to set', {
      hint: 'give --rate, --pps or --weight',
    });
  }
  const bits = limitOf(rate, '--rate');
  const packets = limitOf(pps, '--pps');
  const domain = await connect({ name: 'arrakis-rate' });
  try {
    const snapshot = await takeSnapshot(domain);
    const vnic = findObject(snapshot, wanted, ['vnic']);
    const rows = rowsOf(snapshot).filter((row) => row.vnic === vnic.id);
    const onlyWeight = rate === undefined && pps === undefined;
    // A weight is for sending.
    const ways = options.direction ?? (onlyWeight ? 'send' : undefined);
    for (const way of DIRECTIONS) {
      if (ways !== undefined && way !== ways) continue;
      const now = rows.find((row) => row.queue === (queue ?? null) && row.direction === way);
      await domain.request('rate.set', {
        vnic: vnic.id,
        direction: way,
        bitsPerSecond: bits === undefined ? (now?.bitsPerSecond ?? null) : bits,
        packetsPerSecond: packets === undefined ? (now?.packetsPerSecond ?? null) : packets,
        ...(queue === undefined ? {} : { queue }),
        ...(weight === undefined || (way === 'receive' && ways === undefined) ? {} : { weight }),
      });
    }
    print(await takeSnapshot(domain), options.json === true, vnic);
  } finally {
    await domain.close();
  }
}

interface CoalesceOptions {
  usecs: number;
  frames: number;
  queue?: number;
  json?: boolean;
}

async function coalesce(wanted: string, options: CoalesceOptions): Promise<void> {
  const { usecs, frames, queue } = options;
  const domain = await connect({ name: 'arrakis-rate' });
  try {
    const vnic = findObject(await takeSnapshot(domain), wanted, ['vnic']);
    const of = queue === undefined ? {} : { queue };
    await domain.request('doorbell.set', { vnic: vnic.id, usecs, frames, ...of });
    print(await takeSnapshot(domain), options.json === true, vnic);
  } finally {
    await domain.close();
  }
}

/** Undefined: not given. Null: no limit. */
function limitOf(text: string | undefined, option: string): number | null | undefined {
  if (text === undefined) return undefined;
  return text === 'none' ? null : parseRate(text, option);
}

function direction(text: string): Direction {
  const found = DIRECTIONS.find((way) => way === text);
  if (found !== undefined) return found;
  throw new ArrakisError('ARK_USAGE', `"${text}" is no direction`, { hint: 'send or receive' });
}

function index(text: string): number {
  if (!/^\d{1,9}$/.test(text)) {
    throw new ArrakisError('ARK_USAGE', `"${text}" is not a whole number`);
  }
  return Number(text);
}

function positive(text: string): number {
  const value = index(text);
  if (value > 0) return value;
  throw new ArrakisError('ARK_USAGE', 'a weight is not 0', { hint: '1 to 100' });
}
