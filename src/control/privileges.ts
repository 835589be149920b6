/**
 * What root's daemon keeps of root: the Linux capabilities of KEPT, each with its reason, and no other. docs/policy.md
 * has the table for people.
 */
import {
  capabilitiesOf,
  execute,
  type LinuxCapability,
  limitCapabilities,
} from '../ffi/capabilities.ts';

/** In the environment of a daemon that has executed itself: it does so once, whatever came of it. */
const MARK = 'ARRAKIS_CAPABILITIES_DROPPED';

/** A test holds that the daemon has exactly these, and that it works with them. */
export const KEPT = {
  NET_ADMIN: 'links, addresses, TAP, attaching XDP programs',
  NET_RAW: 'AF_XDP and packet sockets',
  NET_BIND_SERVICE: 'occupying ports below 1024 of addresses that VNICs share with the kernel',
  BPF: 'loading XDP programs and making their maps',
  PERFMON: 'the verifier lets programs compute with packet pointers, as those for IP options do',
  IPC_LOCK: 'packet memory of AF_XDP beyond RLIMIT_MEMLOCK',
  CHOWN: 'the directory of vhost-user sockets belongs to the software NIC',
  DAC_READ_SEARCH:
    'who holds the sockets of a VNIC that was taken away: /proc/PID/fd of other users',
  KILL: 'a device process that hangs, or an application that does not let go, is another user',
  SETUID: 'the software NIC becomes its own user',
  SETGID: 'the software NIC becomes its own group',
  SETPCAP: 'its keeper gives up all capabilities, in every thread',
  SYS_PTRACE: 'which program connects: /proc/PID/exe',
} as const satisfies Partial<Record<LinuxCapability, string>>;

/**
 * Give up every capability that is not in KEPT, by executing this program again. Call first, with nothing open. Returns
 * when it is done, or cannot be done: then with the names of what is too much.
 */
export function dropCapabilities(): string[] {
  if (process.getuid!() !== 0) return [];
  const again = process.env[MARK] !== undefined;
  delete process.env[MARK];
  const excess = excessCapabilities();
  if (excess.length === 0 || again) return excess;
  if (!limitCapabilities(Object.keys(KEPT) as LinuxCapability[])) return excess;
  const [, script, ...args] = process.argv;
  const argv = [process.argv0, ...process.execArgv, script!, ...args];
  return execute(process.execPath, argv, { ...process.env, [MARK]: '1' });
}

/** Capabilities that some thread has, or could get by executing a program, and that are not in KEPT. */
function excessCapabilities(): string[] {
  const held = capabilitiesOf('self').flatMap((sets) => Object.values(sets).flat());
  return [...new Set(held)].filter((name) => !Object.hasOwn(KEPT, name));
}
