/** `arrakis name`: the tree of names, where applications find each other. */
import type { Command } from 'commander';
import { connect, type Domain, type NameChanges, type NameEntry } from '../../arrakis/index.ts';
import type { ArrakisError } from '../../base/errors.ts';
import { formatTable, printJson, printLine } from '../table.ts';

interface Output {
  json?: boolean;
}

/** A directory with what could be seen of it. */
interface Tree extends NameEntry {
  /** Of a directory: what is in it, or why that cannot be seen. */
  entries?: Tree[];
  closed?: string;
}

export function registerName(program: Command): void {
  const name = program.command('name').description('names: where applications find each other');
  name
    .command('ls')
    .description('what is in a directory, whose it is, and what it stands for')
    .argument('[path]', 'absolute, such as /app', '/')
    .option('--json', 'print it as JSON')
    .action((path: string, options: Output) => withDomain((domain) => list(domain, path, options)));
  name
    .command('tree')
    .description('everything below a directory that this user may list')
    .argument('[path]', 'absolute, such as /app', '/')
    .option('--json', 'print it as JSON')
    .action((path: string, options: Output) => withDomain((domain) => tree(domain, path, options)));
  name
    .command('rm')
    .description('take a name away; who has looked it up keeps what it got')
    .argument('<path>', 'a name, or an empty directory')
    .option('--json', 'print what was removed as JSON')
    .action((path: string, options: Output) =>
      withDomain(async (domain) => {
        await domain.names.remove(path);
        if (options.json) printJson({ removed: path });
      }),
    );
  name
    .command('watch')
    .description('print changes in a directory as they come, until Ctrl-C')
    .argument('[path]', 'absolute, such as /app', '/app')
    .option('--json', 'print each as one line of JSON')
    .action((path: string, options: Output) =>
      withDomain((domain) => watch(domain, path, options)),
    );
}

async function withDomain(use: (domain: Domain) => Promise<void>): Promise<void> {
  const domain = await connect({ name: 'arrakis-name' });
  try {
    await use(domain);
  } finally {
    await domain.close();
  }
}

async function list(domain: Domain, path: string, { json }: Output): Promise<void> {
  const entries = await domain.names.list(path);
  if (json) return printJson(entries);
  const rows = entries.map((entry) => [
    modeText(entry),
    entry.uid,
    entry.owner === 0 ? '-' : String(entry.owner),
    entry.kind === 'directory' ? `${entry.name}/` : entry.name,
    meaning(entry),
  ]);
  printLine(rows.length === 0 ? `nothing in ${path}` : formatTable(HEADING, rows));
}

const HEADING = ['MODE', 'UID', 'DOMAIN', 'NAME', 'WHAT'];

/** `rwxr-xr-x` of a directory; names have no mode of their own. */
function modeText({ mode }: NameEntry): string {
  if (mode === null) return '-';
  return [6, 3, 0]
    .flatMap((shift) => ['r', 'w', 'x'].map((c, i) => ((mode >> (shift + 2 - i)) & 1 ? c : '-')))
    .join('');
}

function meaning({ kind, object, rights, server }: NameEntry): string {
  if (kind === 'directory') return server === null ? '' : `served by domain ${server}`;
  return kind === 'endpoint' ? object : `${object} (${rights.join(', ')})`;
}

async function grow(domain: Domain, path: string): Promise<Tree[]> {
  const entries: Tree[] = await domain.names.list(path);
  for (const entry of entries) {
    if (entry.kind !== 'directory') continue;
    const below = `${path === '/' ? '' : path}/${entry.name}`;
    try {
      entry.entries = await grow(domain, below);
    } catch (error) {
      // Not ours to see, served by somebody, or gone meanwhile.
      entry.closed = (error as ArrakisError).code;
    }
  }
  return entries;
}

async function tree(domain: Domain, path: string, { json }: Output): Promise<void> {
  const entries = await grow(domain, path);
  if (json) return printJson(entries);
  printLine([path, ...branches(entries, '')].join('\n'));
}

function branches(entries: readonly Tree[], indent: string): string[] {
  return entries.flatMap((entry, index) => {
    const last = index === entries.length - 1;
    const what = entry.closed === 'ARK_NOT_PERMITTED' ? 'closed to this user' : meaning(entry);
    const text = `${entry.name}${entry.kind === 'directory' ? '/' : ''}`;
    const line = `${indent}${last ? '└─' : '├─'} ${text}${what === '' ? '' : `  ${what}`}`;
    return [line, ...branches(entry.entries ?? [], `${indent}${last ? '  ' : '│ '} `)];
  });
}

async function watch(domain: Domain, path: string, { json }: Output): Promise<void> {
  const changes = await domain.names.watch(path);
  const stop = (): void => void changes.close();
  process.once('SIGINT', stop).once('SIGTERM', stop);
  process.stderr.write(`watching ${path}; Ctrl-C ends it\n`);
  for await (const change of changes) {
    if (json) printLine(JSON.stringify(change));
    else for (const line of changeLines(change)) printLine(line);
  }
}

function* changeLines({ changes, more }: NameChanges): Generator<string> {
  for (const { name, change } of changes) {
    yield name === '' ? 'the directory is gone' : `${change.padEnd(7)} ${name}`;
  }
  if (more) yield 'more than could be told: list it again';
}
