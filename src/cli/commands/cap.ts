/** `arrakis cap`: who may do what, and whose word it is; handing it on, and taking it back. */
import { type Command, InvalidArgumentError } from 'commander';
import { type CapInfo, type CapNarrowing, connect, type Domain } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatRange, type Range } from '../../control/caps/range.ts';
import { parseRange } from '../../control/caps/range-text.ts';
import { CAP_KINDS, type CapKind } from '../../control/caps/rights.ts';
import type { ArgsOf } from '../../control/protocol.ts';
import { findObject, takeSnapshot } from '../snapshot.ts';
import { formatTable, printJson, printLine } from '../table.ts';
import { wholeNumber } from '../whole-number.ts';

interface Narrowing {
  rights?: string;
  range?: string;
  json?: boolean;
}

interface Taking {
  grace?: number;
  json?: boolean;
}

const CAP = 'number of the capability (arrakis cap ls)';
const RANGE = 'part of its range, as `arrakis cap ls` prints it (default: all)';
const RIGHTS = 'some of its rights, such as open,grant (default: all)';

export function registerCap(program: Command): void {
  const cap = program
    .command('cap')
    .description('capabilities: who may do what, by whose word; hand them on, take them back');
  cap
    .command('ls')
    .description('capabilities, each below the one that it was derived from')
    .option('--domain <domain>', 'only those of this domain, its name or number')
    .option('--json', 'print them as JSON')
    .action(list);
  cap
    .command('mint')
    .description('give a domain a new capability; root and the user of the daemon only')
    .argument('<domain>', 'name or number of the domain (arrakis ls)')
    .argument('<kind>', 'device, addresses, rate, cores or pool')
    .argument('<object>', "name of a device, or '*' for any")
    .option('--rights <list>', RIGHTS)
    .option('--range <range>', 'its range, such as "any 10.77.0.0/28" (default: everything)')
    .option('--json', 'print it as JSON')
    .action(mint);
  cap
    .command('derive')
    .description('make one with fewer rights or a smaller range, for the same domain')
    .argument('<cap>', CAP, wholeNumber)
    .option('--rights <list>', RIGHTS)
    .option('--range <range>', RANGE)
    .option('--json', 'print it as JSON')
    .action(derive);
  cap
    .command('grant')
    .description('derive one for another domain')
    .argument('<cap>', CAP, wholeNumber)
    .argument('<domain>', 'name or number of the domain (arrakis ls)')
    .option('--rights <list>', RIGHTS)
    .option('--range <range>', RANGE)
    .option('--json', 'print it as JSON')
    .action(grant);
  const taking = (name: string, description: string): void => {
    cap
      .command(name)
      .description(description)
      .argument('<cap>', CAP, wholeNumber)
      .option('--grace <ms>', 'time that its holders get, told of it (default: 100)', milliseconds)
      .option('--json', 'print how many went as JSON')
      .action((id: number, options: Taking) =>
        take(`cap.${name as 'revoke' | 'delete'}`, id, options),
      );
  };
  taking('revoke', 'take back everything that was derived from it; it stays itself');
  taking('delete', 'take it away, with everything that was derived from it');
}

function milliseconds(text: string): number {
  if (/^\d{1,5}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a whole number of milliseconds, from 0');
}

async function withDomain(act: (domain: Domain) => Promise<void>): Promise<void> {
  const domain = await connect({ name: 'arrakis-cap' });
  try {
    await act(domain);
  } finally {
    await domain.close();
  }
}

/** Every capability that the user may see, by ascending number. */
async function allCapabilities(domain: Domain): Promise<CapInfo[]> {
  const all: CapInfo[] = [];
  for (let omitted = 1; omitted > 0; ) {
    const { reply } = await domain.request('cap.list', { after: all.at(-1)?.cap ?? 0 });
    all.push(...reply.capabilities);
    ({ omitted } = reply);
  }
  return all;
}

async function findCapability(domain: Domain, id: number): Promise<CapInfo> {
  const found = (await allCapabilities(domain)).find(({ cap }) => cap === id);
  if (found !== undefined) return found;
  throw new ArrakisError('ARK_NOT_FOUND', `there is no capability ${id} here`, {
    hint: '`arrakis cap ls` lists them; a revoked one is gone for good',
  });
}

/** Depth first: each is followed by what was derived from it. With the depth of each. */
function asTree(all: readonly CapInfo[]): { cap: CapInfo; depth: number }[] {
  const known = new Set(all.map(({ cap }) => cap));
  const children = new Map<number, CapInfo[]>();
  for (const cap of all) {
    const parent = known.has(cap.parent) ? cap.parent : 0;
    const siblings = children.get(parent) ?? [];
    siblings.push(cap);
    children.set(parent, siblings);
  }
  const rows: { cap: CapInfo; depth: number }[] = [];
  const waiting = (children.get(0) ?? []).map((cap) => ({ cap, depth: 0 })).reverse();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    rows.push(next);
    for (const cap of (children.get(next.cap.cap) ?? []).reverse()) {
      waiting.push({ cap, depth: next.depth + 1 });
    }
  }
  return rows;
}

async function list(options: { domain?: string; json?: boolean }): Promise<void> {
  await withDomain(async (domain) => {
    const { objects } = await takeSnapshot(domain);
    const only =
      options.domain === undefined ? null : findObject({ objects }, options.domain, ['domain']).id;
    const seen = (await allCapabilities(domain)).filter(
      ({ holder }) => only === null || holder === only,
    );
    if (options.json === true) return printJson(seen);
    if (seen.length === 0) return printLine('no capabilities');
    const names = new Map(objects.map(({ id, name }) => [id, name]));
    const rows = asTree(seen).map(({ cap, depth }) => [
      depth === 0 ? cap.cap : `${'  '.repeat(depth - 1)}└ ${cap.cap}`,
      holderText(cap.holder, names),
      cap.kind,
      cap.object,
      cap.rights.join(','),
      formatRange(cap.range as Range),
    ]);
    printLine(formatTable(['CAP', 'DOMAIN', 'KIND', 'OBJECT', 'RIGHTS', 'RANGE'], rows));
  });
}

const holderText = (holder: number, names: ReadonlyMap<number, string>): string =>
  holder === 0 ? 'the daemon' : `${holder} ${names.get(holder) ?? ''}`.trimEnd();

/** What of a capability of `kind` the options leave. */
function narrowing(kind: CapKind, { rights, range }: Narrowing): CapNarrowing {
  return {
    ...(rights === undefined ? {} : { rights: rights.split(',') }),
    ...(range === undefined ? {} : { range: parseRange(kind, range) as CapInfo['range'] }),
  };
}

function print(made: CapInfo, json: boolean | undefined): void {
  if (json === true) {
    printJson(made);
    return;
  }
  const { cap, holder, kind, object, rights } = made;
  const range = formatRange(made.range as Range);
  printLine(
    `capability ${cap} of domain ${holder}: ${kind} ${object}, ${rights.join(',')}, ${range}`,
  );
}

async function mint(to: string, kind: string, object: string, options: Narrowing): Promise<void> {
  const known = CAP_KINDS.find((each) => each === kind);
  if (known === undefined) {
    throw new ArrakisError('ARK_USAGE', `there is no kind "${kind}"`, {
      hint: 'device, addresses, rate, cores or pool',
    });
  }
  await withDomain(async (domain) => {
    const args = {
      to: await domainNumber(domain, to),
      kind: known as ArgsOf<'cap.mint'>['kind'],
      object,
      ...narrowing(known, options),
    };
    print((await domain.request('cap.mint', args)).reply, options.json);
  });
}

async function derive(id: number, options: Narrowing): Promise<void> {
  await withDomain(async (domain) => {
    const { kind } = await findCapability(domain, id);
    print(await domain.derive(id, narrowing(kind, options)), options.json);
  });
}

async function grant(id: number, to: string, options: Narrowing): Promise<void> {
  await withDomain(async (domain) => {
    const { kind } = await findCapability(domain, id);
    const number = await domainNumber(domain, to);
    print(await domain.grant(id, number, narrowing(kind, options)), options.json);
  });
}

/** A user does not see the domains of others, but may know a number. */
async function domainNumber(domain: Domain, wanted: string): Promise<number> {
  if (/^\d{1,15}$/.test(wanted)) return Number(wanted);
  return findObject(await takeSnapshot(domain), wanted, ['domain']).id;
}

async function take(
  op: 'cap.revoke' | 'cap.delete',
  cap: number,
  { grace, json }: Taking,
): Promise<void> {
  await withDomain(async (domain) => {
    const args = { cap, ...(grace === undefined ? {} : { graceMs: grace }) };
    const { removed } = (await domain.request(op, args)).reply;
    if (json === true) printJson({ removed });
    else printLine(`${removed} ${removed === 1 ? 'capability' : 'capabilities'} taken away`);
  });
}
