/**
 * A copy of this package where every user can read it. Root's own directories often let nobody in, and the
 * applications that we start as `nobody` have to be read from somewhere.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArrakisError } from '../base/errors.ts';
import { unreachable } from './users.ts';

const NOBODY = { uid: 65534, gid: 65534 };
/** The package: what is compiled stands in its `dist`. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** Packages that the compiled code loads. */
const DEPENDENCIES = ['koffi', '@koromix/koffi-linux-x64', 'zod', 'commander', 'mrmime'];
const STAGED = 'ARRAKIS_STAGED';
/** The `arrakis` command, from the package's folder. */
export const CLI_SCRIPT = path.join('dist', 'src', 'cli', 'main.js');

/** The copy runs in a folder of its own: a file to write is named from here. */
export function absoluteJson(args: string[]): string[] {
  const at = args.indexOf('--json') + 1;
  const file = at > 0 ? args[at] : undefined;
  if (file === undefined || file.startsWith('-')) return args;
  return args.with(at, path.resolve(file));
}

/** True when root runs this from where `nobody` cannot read it. */
export function mustStage(): boolean {
  if (process.getuid!() !== 0 || process.env[STAGED] !== undefined) return false;
  const node = fs.realpathSync(process.execPath);
  if (unreachable(node, NOBODY) !== null) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `user nobody cannot reach ${node}`, {
      hint: 'install Node for everybody (not under /root), or run this as an ordinary user',
    });
  }
  return unreachable(fileURLToPath(import.meta.url), NOBODY) !== null;
}

/**
 * Run `script`, a compiled file of this package, from a copy that everybody may read, with `args`; then remove the
 * copy. The exit code. `extra` are files and folders of the package beyond what the product needs.
 */
export async function runStaged(
  script: string,
  args: readonly string[],
  extra: readonly string[] = [],
): Promise<number> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-staged-'));
  try {
    fs.chmodSync(dir, 0o755);
    copyPackage(dir, extra);
    const child = spawn(process.execPath, [path.join(dir, script), ...args], {
      cwd: dir,
      stdio: 'inherit',
      env: { ...process.env, [STAGED]: ROOT },
    });
    const pass = (signal: NodeJS.Signals): void => {
      child.kill(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, pass);
    return await new Promise<number>((resolve) => {
      child.once('exit', (code, signal) => resolve(code ?? 128 + os.constants.signals[signal!]));
    });
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

function copyPackage(dir: string, extra: readonly string[]): void {
  const copy = (from: string, to: string): void => {
    fs.cpSync(from, path.join(dir, to), { recursive: true, verbatimSymlinks: true });
  };
  for (const name of ['package.json', 'dist', 'bench', ...extra]) {
    if (fs.existsSync(path.join(ROOT, name))) copy(path.join(ROOT, name), name);
  }
  if (!fs.existsSync(path.join(dir, 'node_modules'))) {
    const require = createRequire(import.meta.url);
    for (const name of DEPENDENCIES) {
      const where = require.resolve.paths(name)?.map((parent) => path.join(parent, name));
      const found = where?.find((folder) => fs.existsSync(folder));
      if (found !== undefined) copy(fs.realpathSync(found), path.join('node_modules', name));
    }
  }
  makeReadable(dir);
}

/** A strict umask must not come along. */
function makeReadable(dir: string): void {
  for (const entry of fs.readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const { mode } = fs.statSync(file);
    fs.chmodSync(file, mode | (entry.isDirectory() || (mode & 0o100) !== 0 ? 0o555 : 0o444));
  }
}
