/**
 * Linux capabilities of this process (capabilities(7)): what it has, and giving up all but a list of them for good.
 *
 * Sets belong to threads, and Node has several before any of our code runs, so capset(2) is not enough. execve(2) ends
 * all threads but one, and a program that root executes gets `inheritable | bounding`: with those two reduced first,
 * the process that comes out has the list and nothing else, in every thread that it will ever have.
 */
import fs from 'node:fs';
import { SystemError } from '../base/errors.ts';
import { setCloseOnExec } from './fd.ts';
import { addressOf, bind, check, errnoName, keepAlive } from './libc.ts';

const prctl = bind<(option: number, a: number, b: number, c: number, d: number) => number>(
  'prctl',
  'int',
  ['int', 'ulong', 'ulong', 'ulong', 'ulong'],
);
const capsetCall = bind<(header: Uint8Array, data: Uint8Array) => number>('capset', 'int', [
  'void *',
  'void *',
]);
const capgetCall = bind<(header: Uint8Array, data: Uint8Array) => number>('capget', 'int', [
  'void *',
  'void *',
]);
const execveCall = bind<(path: string, argv: Uint8Array, envp: Uint8Array) => number>(
  'execve',
  'int',
  ['str', 'void *', 'void *'],
);

const PR_CAPBSET_READ = 23;
const PR_CAPBSET_DROP = 24;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const LINUX_CAPABILITY_VERSION_3 = 0x20080522;
/** Two of `struct __user_cap_data_struct {effective, permitted, inheritable}`: the low and the high 32 bits. */
const CAP_DATA_BYTES = 24;
const STDIO = [0, 1, 2];

/** Numbers of linux/capability.h, by position. */
const NAMES = [
  ['CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID'],
  ['SETPCAP', 'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW'],
  ['IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT'],
  ['SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD'],
  ['LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG'],
  ['WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE'],
] as const;

/** Without the `CAP_` in front. */
export type LinuxCapability = (typeof NAMES)[number][number];

const ALL: readonly LinuxCapability[] = NAMES.flat();

/** Of a set as in /proc/PID/status, hexadecimal. Capabilities that we have no name for come as their number. */
function namesOf(hex: string): string[] {
  const bits = BigInt(`0x${hex}`);
  const names: string[] = [];
  for (let n = 0; n < 64; n++) {
    if (((bits >> BigInt(n)) & 1n) === 1n) names.push(ALL[n] ?? String(n));
  }
  return names;
}

export interface CapabilitySets {
  readonly inheritable: string[];
  readonly permitted: string[];
  readonly effective: string[];
  readonly bounding: string[];
  readonly ambient: string[];
}

/** What the threads of a process have, one entry each; without those that end meanwhile. `process` is a pid or 'self'. */
export function capabilitiesOf(process: number | 'self'): CapabilitySets[] {
  return fs.readdirSync(`/proc/${process}/task`).flatMap((thread) => {
    const status = statusOf(`/proc/${process}/task/${thread}`);
    if (status === null) return [];
    const set = (name: string) =>
      namesOf(new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0');
    return {
      inheritable: set('CapInh'),
      permitted: set('CapPrm'),
      effective: set('CapEff'),
      bounding: set('CapBnd'),
      ambient: set('CapAmb'),
    };
  });
}

function statusOf(thread: string): string | null {
  try {
    return fs.readFileSync(`${thread}/status`, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}

/**
 * Reduce what the calling thread hands on to a program that it executes as root to `keep`. What it may do itself stays.
 * False when it may not (no CAP_SETPCAP) although there is something to take away.
 */
export function limitCapabilities(keep: readonly LinuxCapability[]): boolean {
  for (let n = 0; n < 64; n++) {
    const present = prctl(PR_CAPBSET_READ, n, 0, 0, 0);
    // EINVAL: this kernel's last one was before.
    if (present < 0) break;
    const name = ALL[n];
    if (present === 0 || (name !== undefined && keep.includes(name))) continue;
    if (prctl(PR_CAPBSET_DROP, n, 0, 0, 0) >= 0) continue;
    if (errnoName() === 'EPERM') return false;
    check(-1, 'prctl', 'PR_CAPBSET_DROP', name ?? n);
  }
  check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), 'prctl', 'PR_CAP_AMBIENT');
  clearInheritable();
  return true;
}

function clearInheritable(): void {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(LINUX_CAPABILITY_VERSION_3, 0);
  const data = Buffer.alloc(CAP_DATA_BYTES);
  check(capgetCall(header, data), 'capget');
  for (const half of [0, 12]) data.writeUInt32LE(0, half + 8);
  check(capsetCall(header, data), 'capset');
}

/** NULL-terminated array of C strings, with the strings that it points to. */
function stringArray(strings: readonly string[]): { array: Buffer; kept: Buffer[] } {
  const kept = strings.map((text) => Buffer.from(`${text}\0`));
  const array = Buffer.alloc((strings.length + 1) * 8);
  for (const [i, string] of kept.entries()) {
    array.writeBigUInt64LE(BigInt(addressOf(string)), i * 8);
  }
  return { array, kept };
}

/**
 * Become the program `file`: same pid, working directory and standard descriptors; all others that Node opened close.
 * Returns only by throwing.
 */
export function execute(file: string, argv: readonly string[], env: NodeJS.ProcessEnv): never {
  // Node marks what it inherits close-on-exec, standard descriptors included.
  for (const fd of STDIO) {
    try {
      setCloseOnExec(fd, false);
    } catch {
      // Not open: then neither is it afterwards.
    }
  }
  const pairs = Object.entries(env).filter(([, value]) => value !== undefined);
  const args = stringArray(argv);
  const environment = stringArray(pairs.map(([name, value]) => `${name}=${value}`));
  execveCall(file, args.array, environment.array);
  const reason = errnoName();
  keepAlive(args, environment);
  throw new SystemError('execve', reason, [file]);
}
