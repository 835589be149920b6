/**
 * `arrakis run`: a program as a protection domain. The daemon makes the domain and its VNICs; the program inherits one
 * descriptor, the domain's control channel, and nothing else of ours.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Command } from 'commander';
import {
  connect,
  type Domain,
  parseCpus,
  parseVnicSpec,
  VNIC_SPEC_FORM,
} from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeFd } from '../../ffi/fd.ts';
import { getAffinity } from '../../ffi/process.ts';
import { PUBLISH_FORM, parsePublish } from '../publish/spec.ts';
import { startPublish } from '../publish/start.ts';
import { findUser, type User, unreachable } from '../users.ts';

/** Where the program finds its control channel (libarrakis reads ARRAKIS_FD). */
const CHANNEL_FD = 3;
const COMMAND_NOT_FOUND = 127;
const ANY_EXECUTE = 0o111;
/** What Node runs. TypeScript only where Node strips the types itself (22.18 and later). */
const SCRIPT = 'typescript' in process.features ? /\.([cm]?js|[cm]?ts)$/ : /\.[cm]?js$/;

interface RunOptions {
  vnic?: string[];
  cpu?: string;
  user?: string;
  name?: string;
  publish?: string[];
  posix?: boolean;
}

export function registerRun(program: Command): void {
  // What stands after the program's name is the program's.
  program.enablePositionalOptions();
  program
    .command('run')
    .description('run a program as a protection domain, with virtual NICs of its own')
    .argument('<program>', 'a script for Node or any executable')
    .argument('[args...]', 'its arguments')
    .option('--vnic <spec>', `a VNIC, may be given again: ${VNIC_SPEC_FORM}`, collect)
    .option(
      '--cpu <list>',
      'core set to be placed in, such as 0 or 0,2-3, a core for each thread; all: any',
    )
    .option('--user <name>', 'user to run as; only root may choose another')
    .option(
      '--posix',
      "put Node's own net, dgram, http and tls on the VNICs, the program unchanged",
    )
    .option('--name <name>', 'name of the domain (default: of the program)')
    .option(
      '--publish <ports>',
      `a port of the host that leads to the VNIC of soft0, may be given again: ${PUBLISH_FORM}`,
      collect,
    )
    .passThroughOptions()
    .action(run);
}

const collect = (value: string, all: string[] = []): string[] => [...all, value];

async function run(file: string, args: string[], options: RunOptions): Promise<void> {
  const user = chooseUser(options.user);
  const isScript = SCRIPT.test(file);
  const program = programOf(file);
  if (isScript) checkScript(file, user);
  else checkProgram(file, program);
  const coreSet = options.cpu === undefined ? null : chooseCpus(options.cpu);
  const vnics = (options.vnic ?? []).map((text) => parseVnicSpec(text));
  const published = (options.publish ?? []).map(parsePublish);
  const name =
    options.name ??
    path
      .basename(file)
      .replace(/[^A-Za-z0-9_.@-]/g, '_')
      .slice(0, 32);
  if (vnics.length === 0) {
    process.stderr.write(`arrakis: no --vnic: ${name} is a domain without a network card\n`);
  }
  const domain = await connect({ name: 'arrakis-run' });
  let child: ChildProcess;
  let publisher: ChildProcess | null = null;
  try {
    const { reply, fds } = await domain.request('domain.prepare', {
      name,
      uid: user.uid,
      gid: user.gid,
      ...(program === null ? {} : { program }),
      vnics,
    });
    const channel = fds[0]!;
    try {
      if (published.length > 0) {
        publisher = await startPublish(domain, published, vnics, user, environmentOf(user));
      }
      const cpus = await place(domain, reply.domain, coreSet);
      const { command, commandArgs, nodeOptions } = commandOf(file, args, isScript, options);
      child = spawn(command, commandArgs, {
        stdio: ['inherit', 'inherit', 'inherit', channel],
        env: {
          ...environmentOf(user),
          ...(nodeOptions === null ? {} : { NODE_OPTIONS: nodeOptions }),
          ARRAKIS_FD: String(CHANNEL_FD),
          ...(cpus.length === 0 ? {} : { ARRAKIS_CPUS: cpus.join(',') }),
        },
        ...(process.getuid!() === 0 ? { uid: user.uid, gid: user.gid } : {}),
      });
    } finally {
      closeFd(channel);
    }
    process.exitCode = await outcome(child, file);
  } finally {
    publisher?.stdin?.end();
    await leave(domain);
  }
}

/** Where what `arrakis/posix` names is. */
const POSIX = new URL('../../posix/index.js', import.meta.url).href;

/** What to start. A script gets `--posix` by Node's arguments; what may run Node later, by its environment. */
function commandOf(file: string, args: string[], isScript: boolean, { posix }: RunOptions) {
  const imports = posix === true ? ['--import', POSIX] : [];
  if (isScript) {
    const commandArgs = [...imports, file, ...args];
    return { command: process.execPath, commandArgs, nodeOptions: null };
  }
  const { NODE_OPTIONS: before = '' } = process.env;
  const nodeOptions = posix === true ? `${before} ${imports.join(' ')}`.trim() : null;
  return { command: file, commandArgs: args, nodeOptions };
}

/** Absolute path of what is run, for the policy: of a script its own, not Node's. Null when it is not to be found. */
function programOf(file: string): string | null {
  const dirs = file.includes('/') ? [''] : (process.env.PATH ?? '').split(':');
  const found = dirs.map((dir) => path.resolve(dir, file)).find((each) => fs.existsSync(each));
  return found === undefined ? null : fs.realpathSync(found);
}

/** The user to run as: oneself, or for root whoever was named. */
function chooseUser(name: string | undefined): User {
  const own = process.getuid!();
  if (name === undefined)
    return { name: String(own), uid: own, gid: process.getgid!(), home: os.homedir() };
  const user = findUser(name);
  if (own !== 0 && user.uid !== own) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `only root may run a program as ${name}`, {
      hint: 'leave --user out, or use sudo',
    });
  }
  return user;
}

/** Where the daemon wants the domain to run: out of the core set, or of its capabilities. Empty: anywhere. */
async function place(
  domain: Domain,
  id: number,
  coreSet: number[] | null,
): Promise<readonly number[]> {
  const args = { domain: id, ...(coreSet === null ? {} : { cpus: coreSet }) };
  return (await domain.request('placement.place', args)).reply.cpus;
}

function chooseCpus(list: string): number[] {
  const allowed = getAffinity();
  if (list === 'all') return allowed;
  const cpus = parseCpus(list);
  const wrong = cpus.find((cpu) => !allowed.includes(cpu));
  if (wrong === undefined) return cpus;
  throw new ArrakisError('ARK_USAGE', `processor ${wrong} is not there, or not for us`, {
    hint: `there are: ${allowed.join(',')}`,
  });
}

/** What of our environment goes along to another user: nothing that could be a secret of root's. */
const PASSED = /^(PATH|TERM|LANG|LC_\w+|TZ|NODE_ENV|COLORTERM|NO_COLOR)$/;

function environmentOf(user: User): NodeJS.ProcessEnv {
  if (user.uid === process.getuid!()) return process.env;
  const passed = Object.entries(process.env).filter(([name]) => PASSED.test(name));
  return {
    ...Object.fromEntries(passed),
    USER: user.name,
    LOGNAME: user.name,
    HOME: user.home,
  };
}

function checkScript(file: string, user: User): void {
  if (!fs.existsSync(file)) throw new ArrakisError('ARK_USAGE', `there is no file ${file}`);
  const wall = unreachable(file, user) ?? unreachable(fs.realpathSync(process.execPath), user);
  if (wall !== null) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `user ${user.name} cannot reach ${wall}`, {
      hint: `put the program where everybody may read it, or chmod o+rx ${wall}`,
    });
  }
}

/** `program` is where `file` was found; null when it was not. Whether `user` may execute it, the kernel says. */
function checkProgram(file: string, program: string | null): void {
  if (program === null) {
    throw new ArrakisError('ARK_USAGE', `there is no program ${file}`, {
      hint: file.includes('/') ? 'see its path' : `it is not in PATH; here it would be ./${file}`,
    });
  }
  if ((fs.statSync(program).mode & ANY_EXECUTE) !== 0) return;
  throw new ArrakisError('ARK_USAGE', `${file} is not executable`, {
    hint: /\.[cm]?ts$/.test(file)
      ? 'this Node does not run TypeScript: name the compiled .js'
      : `chmod +x ${file}, or name the program that runs it`,
  });
}

/** The program's exit code as a shell would have it. Signals that we get are passed on. */
function outcome(child: ChildProcess, file: string): Promise<number> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => child.kill(signal));
  }
  return new Promise((resolve) => {
    child.once('error', (error) => {
      process.stderr.write(`arrakis: cannot run ${file}: ${error.message}\n`);
      resolve(COMMAND_NOT_FOUND);
    });
    child.once('exit', (code, signal) => {
      resolve(code ?? 128 + os.constants.signals[signal!]);
    });
  });
}

/** The daemon may have gone while the program ran: that is not this program's failure. */
async function leave(domain: Domain): Promise<void> {
  await domain.close().catch(() => {});
}
