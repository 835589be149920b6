/**
 * The shape of the source tree, as a test: which folder may import which, sizes, calls that do not belong
 * somewhere, unfinished and dead code. `node dist/tools/tidy.js` prints what is wrong as `file:line rule: text`.
 * The rules are tables; each has a reason that is printed with it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { blank, functionsOf, importsOf, lineAt } from './source-text.ts';

export interface Source {
  /** From the root, with slashes: `src/base/errors.ts`. */
  path: string;
  text: string;
}

export interface Violation {
  path: string;
  /** From 1. */
  line: number;
  rule: string;
  text: string;
}

const FILE_LINES_MAX = 500;
const TEST_FILE_LINES_MAX = 900;
const FUNCTION_LINES_MAX = 70;

const isTest = (file: string): boolean => file.endsWith('.test.ts') || file.startsWith('test/');
const isUnder = (file: string, folders: readonly string[]): boolean =>
  folders.some((folder) => file.startsWith(`${folder}/`));

/**
 * What each folder may import besides itself; `*` stands for one folder or file name. Tests may import anything.
 * A folder that is not here may not exist.
 */
export const LAYERS: Readonly<Record<string, readonly string[]>> = {
  'src/base': [],
  'src/ffi': ['src/base'],
  'src/memory': ['src/base', 'src/ffi'],
  'src/ring': ['src/base', 'src/ffi', 'src/memory'],
  'src/message': ['src/base', 'src/ffi'],
  'src/ebpf': ['src/base'],
  'src/filter': ['src/base', 'src/ebpf'],
  'src/device': ['src/base', 'src/ffi', 'src/memory', 'src/ring'],
  'src/drivers': [
    'src/base',
    'src/ffi',
    'src/memory',
    'src/ring',
    'src/ebpf',
    'src/filter',
    'src/device',
  ],
  'src/wire': ['src/base'],
  'src/net': ['src/base', 'src/wire', 'src/memory', 'src/device'],
  'src/persist': ['src/base', 'src/memory', 'src/device'],
  'src/softnic': [
    'src/base',
    'src/ffi',
    'src/memory',
    'src/ring',
    'src/filter',
    'src/device',
    'src/wire',
  ],
  'src/softdisk': ['src/base', 'src/ffi', 'src/memory', 'src/ring', 'src/device'],
  'src/keeper': ['src/base', 'src/ffi'],
  // Never a driver's queue: the control plane touches no packet.
  'src/control': [
    'src/base',
    'src/ffi',
    'src/filter',
    'src/device',
    'src/drivers/*/attach.ts',
    'src/drivers/*/grant.ts',
    'src/softnic/control.ts',
    'src/message/layout.ts',
    'src/keeper/protocol.ts',
  ],
  // Of the control plane only how to talk to it.
  'src/arrakis': [
    'src/base',
    'src/ffi',
    'src/memory',
    'src/message',
    'src/ring',
    'src/filter',
    'src/device',
    'src/drivers',
    'src/wire',
    'src/net',
    'src/persist',
    'src/control/channel.ts',
    'src/control/limits.ts',
    'src/control/paths.ts',
    'src/control/protocol.ts',
    'src/control/vnic-spec.ts',
  ],
  'src/posix': ['src/base', 'src/device', 'src/net', 'src/persist', 'src/arrakis'],
  'src/cli': [
    'src/base',
    'src/ffi',
    'src/filter',
    'src/device',
    'src/arrakis',
    'src/control',
    'bench',
  ],
  apps: ['src/base', 'src/arrakis'],
  examples: ['src/base', 'src/arrakis'],
  bench: ['src', 'apps'],
  tools: ['src/cli'],
};

interface BannedCall {
  rule: string;
  pattern: RegExp;
  /** Where it is banned. */
  in: readonly string[];
  /** Folders below those where it is allowed. */
  except: readonly string[];
  why: string;
}

const SIMULATED = ['src/net', 'src/persist', 'src/drivers'];
const EVERYWHERE = ['src', 'apps', 'examples', 'bench', 'tools', 'test'];

const BANNED_CALLS: readonly BannedCall[] = [
  {
    rule: 'clock',
    pattern: /\bDate\.now\b|\bnew Date\b|\bperformance\.now\b|\bprocess\.hrtime\b/g,
    in: SIMULATED,
    except: [],
    why: 'time is an argument here, so that a simulation can run it',
  },
  {
    rule: 'randomness',
    pattern: /\bMath\.random\b|\bgetRandomValues\b|\brandom(?:Bytes|Int|UUID|Fill)\b/g,
    in: SIMULATED,
    except: [],
    why: 'randomness is an argument here, so that a simulation can repeat it',
  },
  {
    rule: 'timer',
    pattern: /\bset(?:Timeout|Interval)\b/g,
    in: SIMULATED,
    except: [],
    why: 'timers belong to the caller here, so that a simulation can run them',
  },
];

interface BannedImport {
  rule: string;
  modules: readonly string[];
  in: readonly string[];
  except: readonly string[];
  why: string;
}

const BANNED_IMPORTS: readonly BannedImport[] = [
  {
    rule: 'koffi',
    modules: ['koffi'],
    in: EVERYWHERE,
    except: ['src/ffi'],
    why: 'native calls live in src/ffi',
  },
  {
    rule: 'child_process',
    modules: ['node:child_process', 'child_process'],
    in: ['src'],
    except: ['src/control', 'src/cli'],
    why: 'only the control plane and the command line start processes',
  },
  {
    rule: 'randomness',
    modules: ['node:crypto', 'crypto'],
    in: SIMULATED,
    except: [],
    why: 'randomness is an argument here, so that a simulation can repeat it',
  },
  {
    rule: 'timer',
    modules: ['node:timers', 'node:timers/promises'],
    in: SIMULATED,
    except: [],
    why: 'timers belong to the caller here, so that a simulation can run them',
  },
];

/** Modules that nobody imports because they are started, or are the package. */
const ENTRIES: readonly RegExp[] = [
  /^src\/(cli|softnic|softdisk|control|keeper)\/main\.ts$/,
  /^src\/(arrakis|posix)\/index\.ts$/,
  /^apps\/[^/]+\/main\.ts$/,
  /^(examples|bench|tools|test)\//,
  /\.test\.ts$/,
];

function folderOf(file: string): string {
  const parts = file.split('/');
  return parts[0] === 'src' ? parts.slice(0, 2).join('/') : parts[0]!;
}

/** Path from the root of the relative import `specifier` in `from`, or null for a package. */
function resolveImport(from: string, specifier: string): string | null {
  if (!specifier.startsWith('.')) return null;
  return path.posix.normalize(path.posix.join(path.posix.dirname(from), specifier));
}

function allows(pattern: string, file: string): boolean {
  if (!pattern.includes('*')) return file === pattern || file.startsWith(`${pattern}/`);
  const expression = pattern.replaceAll('.', '\\.').replaceAll('*', '[^/]+');
  return new RegExp(`^${expression}$`).test(file);
}

/** Imports against the direction of LAYERS. */
export function checkLayers(source: Source): Violation[] {
  if (isTest(source.path)) return [];
  const folder = folderOf(source.path);
  const allowed = LAYERS[folder];
  if (allowed === undefined) {
    const text = `folder ${folder} is not in the table of tools/tidy.ts`;
    return [{ path: source.path, line: 1, rule: 'layers', text }];
  }
  const violations: Violation[] = [];
  for (const { specifier, line } of importsOf(source.text)) {
    const target = resolveImport(source.path, specifier);
    if (target === null || folderOf(target) === folder) continue;
    if (allowed.some((pattern) => allows(pattern, target))) continue;
    const text = `${folder} may not import ${target}`;
    violations.push({ path: source.path, line, rule: 'layers', text });
  }
  return violations;
}

/** Files and functions that are too long. Blank lines and comments do not count for a file. */
export function checkSizes(source: Source): Violation[] {
  const violations: Violation[] = [];
  const code = blank(source.text, 'comments').split('\n');
  const lines = code.filter((line) => line.trim() !== '').length;
  const max = isTest(source.path) ? TEST_FILE_LINES_MAX : FILE_LINES_MAX;
  if (lines > max) {
    const text = `${lines} lines of code, at most ${max}`;
    violations.push({ path: source.path, line: 1, rule: 'file size', text });
  }
  for (const { name, line, lines } of functionsOf(source.text)) {
    if (lines <= FUNCTION_LINES_MAX) continue;
    const text = `${name} has ${lines} lines, at most ${FUNCTION_LINES_MAX}`;
    violations.push({ path: source.path, line, rule: 'function size', text });
  }
  return violations;
}

/** Calls and packages where they do not belong. Tests are free to use them, but not koffi. */
export function checkBanned(source: Source): Violation[] {
  const violations: Violation[] = [];
  const report = (rule: string, line: number, what: string, why: string): void => {
    violations.push({ path: source.path, line, rule, text: `${what}: ${why}` });
  };
  const applies = (ban: { in: readonly string[]; except: readonly string[] }): boolean =>
    isUnder(source.path, ban.in) && !isUnder(source.path, ban.except);
  const imports = importsOf(source.text);
  for (const ban of BANNED_IMPORTS) {
    if (!applies(ban) || (isTest(source.path) && ban.rule !== 'koffi')) continue;
    for (const { specifier, line } of imports) {
      if (ban.modules.includes(specifier)) report(ban.rule, line, specifier, ban.why);
    }
  }
  if (isTest(source.path)) return violations;
  const code = blank(source.text, 'comments and strings');
  for (const ban of BANNED_CALLS) {
    if (!applies(ban)) continue;
    for (const match of code.matchAll(ban.pattern)) {
      report(ban.rule, lineAt(code, match.index), match[0], ban.why);
    }
  }
  return violations;
}

// Put together here, or this file would break its own rule.
const UNFINISHED = new RegExp(
  `\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`,
  'g',
);
const FOCUSED = /\b(?:it|test|describe|suite)\.only\(|\bonly: true\b/g;
const SKIPPED = /\b(?:it|test|describe|suite)\.skip\(|\bt\.skip\(\)|\bskip: true\b/g;

/** Marks of unfinished work, focused tests, and tests that are skipped without saying why. */
export function checkUnfinished(source: Source): Violation[] {
  const violations: Violation[] = [];
  const code = blank(source.text, 'comments and strings');
  const look = (text: string, pattern: RegExp, rule: string, why: string): void => {
    for (const match of text.matchAll(pattern)) {
      const line = lineAt(text, match.index);
      violations.push({ path: source.path, line, rule, text: `${match[0]}: ${why}` });
    }
  };
  look(source.text, UNFINISHED, 'unfinished', 'finish it');
  look(code, FOCUSED, 'focused test', 'it keeps the others from running');
  look(code, SKIPPED, 'skipped test', 'say why, in the skip option');
  return violations;
}

/** Modules under src and apps that no entry reaches by imports. */
export function checkDead(sources: readonly Source[]): Violation[] {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const reached = new Set<string>();
  const waiting: string[] = [];
  const reach = (file: string): void => {
    if (reached.has(file) || !byPath.has(file)) return;
    reached.add(file);
    waiting.push(file);
  };
  for (const { path: file } of sources) {
    if (ENTRIES.some((entry) => entry.test(file))) reach(file);
  }
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    for (const { specifier } of importsOf(byPath.get(file)!.text, true)) {
      const target = resolveImport(file, specifier);
      if (target !== null) reach(target);
    }
  }
  return sources
    .filter((source) => !reached.has(source.path))
    .map(({ path: file }) => ({
      path: file,
      line: 1,
      rule: 'dead file',
      text: 'nobody imports it',
    }));
}

/** All rules over all sources, in order of file and line. */
export function checkAll(sources: readonly Source[]): Violation[] {
  const violations = checkDead(sources);
  for (const source of sources) {
    violations.push(...checkLayers(source), ...checkSizes(source));
    violations.push(...checkBanned(source), ...checkUnfinished(source));
  }
  return violations.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.line - b.line));
}

export const formatViolation = (violation: Violation): string =>
  `${violation.path}:${violation.line} ${violation.rule}: ${violation.text}`;

/** Every TypeScript source below `root`, in the folders that we build. */
export function readTree(root: string): Source[] {
  const sources: Source[] = [];
  for (const top of EVERYWHERE) {
    const folder = path.join(root, top);
    if (!fs.existsSync(folder)) continue;
    for (const name of fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts')) continue;
      const file = path.posix.join(top, name.replaceAll(path.sep, '/'));
      sources.push({ path: file, text: fs.readFileSync(path.join(root, file), 'utf8') });
    }
  }
  return sources;
}

/** The checkout that this compiled file belongs to. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const violations = checkAll(readTree(ROOT));
  for (const violation of violations) console.log(formatViolation(violation));
  process.exitCode = violations.length > 0 ? 1 : 0;
}
