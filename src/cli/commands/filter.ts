/** `arrakis filter`: what VNICs receive and send, changed while they run; and what a filter means. */
import type { Command } from 'commander';
import {
  connect,
  type Domain,
  formatFilter,
  formatIpv4,
  parseFilter,
} from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { ReplyOf } from '../../control/protocol.ts';
import { type Box, DIM, type Filter, isWhole } from '../../filter/boxes.ts';
import { findObject, takeSnapshot } from '../snapshot.ts';
import { formatTable, printJson, printLine } from '../table.ts';
import { wholeNumber } from '../whole-number.ts';

interface Options {
  transmit?: boolean;
  mirror?: boolean;
  json?: boolean;
}

const VNIC = 'name or number of the VNIC (arrakis ls)';
const FILTER = 'number of the filter (arrakis filter ls)';
const TEXT = 'like tcpdump: udp dst port 53 and src net 10.0.0.0/8';
const TRANSMIT = 'what it sends, instead of what it receives';

export function registerFilter(program: Command): void {
  const filter = program
    .command('filter')
    .description('what VNICs receive and send, changed while they run');
  filter
    .command('ls')
    .description('the filters of every VNIC, or of one')
    .argument('[vnic]', VNIC)
    .option('--json', 'print them as JSON')
    .action(list);
  filter
    .command('add')
    .description('one more filter; nobody else may have any of it')
    .argument('<vnic>', VNIC)
    .argument('<text...>', TEXT)
    .option('--transmit', TRANSMIT)
    .option('--json', 'print it as JSON')
    .action(add);
  filter
    .command('rm')
    .description('take a filter away')
    .argument('<vnic>', VNIC)
    .argument('<filter>', FILTER, wholeNumber)
    .option('--json', 'print what is left as JSON')
    .action(remove);
  filter
    .command('replace')
    .description('another filter in the place of one, at once')
    .argument('<vnic>', VNIC)
    .argument('<filter>', FILTER, wholeNumber)
    .argument('<text...>', TEXT)
    .option('--json', 'print it as JSON')
    .action(replace);
  filter
    .command('set')
    .description('these filters in the place of all, at once; each argument is one (quote it)')
    .argument('<vnic>', VNIC)
    .argument('[filters...]', 'none: nothing is received, or sent, any more')
    .option('--transmit', TRANSMIT)
    .option('--mirror', 'send what mirrors the filters to receive by, again')
    .option('--json', 'print them as JSON')
    .action(set);
  filter
    .command('check')
    .description('what a filter means: its canonical text and its boxes; asks no daemon')
    .argument('<text...>', TEXT)
    .option('--json', 'print it as JSON')
    .action(check);
}

/** Connected while `work` runs. */
async function withDaemon<T>(work: (domain: Domain) => Promise<T>): Promise<T> {
  const domain = await connect({ name: 'arrakis-filter' });
  try {
    return await work(domain);
  } finally {
    await domain.close();
  }
}

interface Row {
  vnic: number;
  name: string;
  direction: string;
  /** Null: a mirror of what is received, which is no object. */
  filter: number | null;
  boxes: number;
  text: string;
}

async function rowsOf(domain: Domain, wanted: string | undefined): Promise<Row[]> {
  const snapshot = await takeSnapshot(domain);
  const one = wanted === undefined ? null : findObject(snapshot, wanted, ['vnic']);
  const vnics = snapshot.objects.filter(
    (o) => o.kind === 'vnic' && (one === null || o.id === one.id),
  );
  return vnics.flatMap(({ id: vnic, name, detail }): Row[] => {
    const own = snapshot.objects.filter((o) => o.kind === 'filter' && o.detail.vnic === vnic);
    const rows = own.map((o) => ({
      vnic,
      name,
      direction: String(o.detail.direction),
      filter: o.id,
      boxes: Number(o.detail.boxes),
      text: o.name,
    }));
    if (detail.transmit !== null) return rows;
    const mirror = { vnic, name, direction: 'transmit', filter: null, boxes: 0 };
    return [...rows, { ...mirror, text: '(the mirror of receive)' }];
  });
}

async function list(wanted: string | undefined, options: Options): Promise<void> {
  const rows = await withDaemon((domain) => rowsOf(domain, wanted));
  if (options.json) printJson(rows);
  else printLine(rows.length === 0 ? 'no VNICs' : filterTable(rows));
}

function filterTable(rows: readonly Row[]): string {
  const heading = ['FILTER', 'VNIC', 'DIRECTION', 'BOXES', 'TEXT'];
  const cells = rows.map((r) => [r.filter ?? '-', r.name, r.direction, r.boxes || '-', r.text]);
  return formatTable(heading, cells);
}

type Shown = ReplyOf<'filter.add'>;

function print(filters: readonly Shown[], one: boolean, { json }: Options): void {
  if (json) printJson(one ? filters[0] : filters);
  else for (const { filter, text } of filters) printLine(`${filter}: ${text}`);
}

const idOf = async (domain: Domain, wanted: string): Promise<number> =>
  findObject(await takeSnapshot(domain), wanted, ['vnic']).id;

const directionOf = ({ transmit, mirror }: Options) =>
  transmit || mirror ? ('transmit' as const) : ('receive' as const);

async function add(wanted: string, words: string[], options: Options): Promise<void> {
  const added = await withDaemon(async (domain) => {
    const vnic = await idOf(domain, wanted);
    const args = { vnic, direction: directionOf(options), text: words.join(' ') };
    return (await domain.request('filter.add', args)).reply;
  });
  print([added], true, options);
}

async function remove(wanted: string, filter: number, options: Options): Promise<void> {
  const left = await withDaemon(async (domain) => {
    await domain.request('filter.remove', { vnic: await idOf(domain, wanted), filter });
    return rowsOf(domain, wanted);
  });
  if (options.json) printJson(left);
}

async function replace(
  wanted: string,
  filter: number,
  words: string[],
  options: Options,
): Promise<void> {
  const now = await withDaemon(async (domain) => {
    const args = { vnic: await idOf(domain, wanted), filter, text: words.join(' ') };
    return (await domain.request('filter.replace', args)).reply;
  });
  print([now], true, options);
}

async function set(wanted: string, texts: string[], options: Options): Promise<void> {
  if (options.mirror && texts.length > 0) {
    throw new ArrakisError('ARK_USAGE', '--mirror takes no filters', {
      hint: 'leave them out, or use --transmit',
    });
  }
  const filters = options.mirror ? null : texts;
  const now = await withDaemon(async (domain) => {
    const args = { vnic: await idOf(domain, wanted), direction: directionOf(options), filters };
    return (await domain.request('filter.set', args)).reply.filters;
  });
  print(now, false, options);
}

function check(words: string[], options: Options): void {
  const filter = parseFilter(words.join(' '));
  const text = formatFilter(filter);
  if (options.json) printJson({ text, boxes: filter.boxes.map(plainBox) });
  else printLine(`${text}\n\n${boxTable(filter)}`);
}

/** A box as JSON: each range as [first, last]; null where there is none. */
function plainBox(box: Box): Record<string, unknown> {
  const range = (d: number): [number, number] => [box.first[d]!, box.last[d]!];
  const addresses = (d: number): string[] => range(d).map(formatIpv4);
  const ported = box.last[DIM.ports] === 1;
  return {
    protocol: range(DIM.protocol),
    source: addresses(DIM.source),
    sourcePort: ported ? range(DIM.sourcePort) : null,
    destination: addresses(DIM.destination),
    destinationPort: ported ? range(DIM.destinationPort) : null,
    withoutPorts: box.first[DIM.ports] === 0,
  };
}

function boxTable({ boxes }: Filter): string {
  const heading = ['PROTOCOL', 'SOURCE', 'PORTS', 'DESTINATION', 'PORTS', 'FRAGMENTS'];
  const rows = boxes.map((box) => {
    const cell = (d: number, format: (n: number) => string): string => {
      const [first, last] = [box.first[d]!, box.last[d]!];
      if (isWhole(box, d)) return 'any';
      return first === last ? format(first) : `${format(first)}-${format(last)}`;
    };
    const port = (d: number): string => (box.last[DIM.ports] === 0 ? 'none' : cell(d, String));
    return [
      cell(DIM.protocol, String),
      cell(DIM.source, formatIpv4),
      port(DIM.sourcePort),
      cell(DIM.destination, formatIpv4),
      port(DIM.destinationPort),
      box.first[DIM.ports] === 0 ? 'yes' : 'no',
    ];
  });
  return formatTable(heading, rows);
}
