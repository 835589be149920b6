/**
 * arrakisd, the process. `node dist/src/control/main.js [options]`; `arrakis up` starts it.
 *
 * Once it serves it writes one line `{"message":"serving",...}` to its log. SIGTERM and SIGINT end it in order. The exit
 * code is 0 after an orderly end, 2 when another runs in its directory, 1 when it could not start for another reason.
 */
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { formatIpv4, parseCidr } from '../base/address.ts';
import { parseCpus } from '../base/cpus.ts';
import { ArrakisError } from '../base/errors.ts';
import { BITS_PER_SECOND_MAX, BITS_PER_SECOND_MIN, formatRate, parseRate } from '../device/rate.ts';
import { removeStaleLinks } from '../drivers/af-xdp/attach.ts';
import { nextIncarnation } from './adopt.ts';
import { Daemon } from './daemon.ts';
import { afXdpOpener } from './devices/af-xdp.ts';
import type { DeviceEvents } from './devices/device.ts';
import { SoftNic, softNicConfig } from './devices/softnic.ts';
import { inheritSoftNic, isSameNetwork } from './devices/softnic-inherited.ts';
import { Uplink } from './devices/uplink.ts';
import { Safekeeping } from './keeping.ts';
import { endOrphans, linkAlias } from './leftovers.ts';
import { LIMITS, NIC_USER } from './limits.ts';
import { type Log, logTo } from './log.ts';
import { logPath, runDirectory } from './paths.ts';
import { machineEnvironment, networkOf } from './policy/environment.ts';
import { defaultPolicyPath } from './policy/file.ts';
import { PolicyStore } from './policy/store.ts';
import { dropCapabilities } from './privileges.ts';
import { errorToWire } from './protocol.ts';
import { EXIT_ALREADY_RUNNING, RunDirectory } from './run-directory.ts';

const USAGE = `arrakisd [--dir DIR] [--tap-address IP/LENGTH] [--tap-name NAME] [--no-tap] [--device IF]...
         [--policy FILE] [--nic-cpu LIST] [--nic-rate RATE] [--nic-user UID:GID] [--keep-ms MS] [--log]
         [--end-with-stdin]
  --dir DIR          run directory (ARRAKIS_DIR; root: /run/arrakis)
  --tap-address CIDR network of soft0 and the host's address on it (10.77.0.1/24)
  --tap-name NAME    interface of the host on that network (arrakis0); root only
  --no-tap           soft0 without the host
  --device IF        take this interface from the start; may be given again
  --policy FILE      what users, groups and programs are given (/etc/arrakis/policy.yaml, or ~/.config/arrakis/policy.yaml
                     of another user than root, if it exists); read again on SIGHUP
  --nic-cpu LIST     processors of the software NIC, such as 1 or 2-3 (any)
  --nic-rate RATE    bits a second that all its VNICs together may send, such as 1G (no limit)
  --nic-user UID:GID whom the software NIC becomes; nobody else may be that user; root only (64983:64983)
  --keep-ms MS       when the daemon is killed, everything goes on for so long, for the next to take over (60000)
  --log              write the log to DIR/arrakisd.log instead of stderr
  --end-with-stdin   end in order when standard input ends: with whoever holds the other end of that pipe
`;
const SOFT_NIC = 'soft0';
const STDERR = 2;
const ID_NONE = 2 ** 32 - 1;

interface Options {
  dir: string;
  network: { address: number; prefix: number };
  tapName: string | null;
  interfaces: string[];
  /** Null: where it is by default, if anywhere. */
  policy: string | null;
  nicCpus: number[] | null;
  nicRate: number | null;
  nicUser: { uid: number; gid: number } | null;
  keepMs: number;
  logToFile: boolean;
  endWithStdin: boolean;
}

function parseOptions(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      dir: { type: 'string' },
      'tap-address': { type: 'string', default: '10.77.0.1/24' },
      'tap-name': { type: 'string', default: 'arrakis0' },
      'no-tap': { type: 'boolean', default: false },
      device: { type: 'string', multiple: true, default: [] },
      policy: { type: 'string' },
      'nic-cpu': { type: 'string' },
      'nic-rate': { type: 'string' },
      'nic-user': { type: 'string' },
      'keep-ms': { type: 'string', default: String(LIMITS.keeperMsMax) },
      log: { type: 'boolean', default: false },
      'end-with-stdin': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const root = process.getuid!() === 0;
  const network = parseCidr(values['tap-address'], 24);
  if (network.prefix < 8 || network.prefix > 30) {
    throw new ArrakisError('ARK_USAGE', '--tap-address needs a prefix length from 8 to 30', {
      hint: 'write it as 10.77.0.1/24',
    });
  }
  return {
    dir: path.resolve(values.dir ?? runDirectory(process.getuid!())),
    network,
    tapName: values['no-tap'] || !root ? null : values['tap-name'],
    interfaces: values.device,
    policy: values.policy === undefined ? null : path.resolve(values.policy),
    nicCpus: values['nic-cpu'] === undefined ? null : parseCpus(values['nic-cpu']),
    nicRate: values['nic-rate'] === undefined ? null : parseLinkRate(values['nic-rate']),
    nicUser: root ? parseUser(values['nic-user']) : null,
    keepMs: parseMs(values['keep-ms']),
    logToFile: values.log,
    endWithStdin: values['end-with-stdin'],
  };
}

function parseMs(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new ArrakisError('ARK_USAGE', `--keep-ms is not ${text}`, {
    hint: 'milliseconds, such as 60000',
  });
}

function parseLinkRate(text: string): number {
  const rate = parseRate(text, '--nic-rate');
  if (rate >= BITS_PER_SECOND_MIN && rate <= BITS_PER_SECOND_MAX) return rate;
  throw new ArrakisError('ARK_USAGE', `--nic-rate is not ${text} bit/s`, {
    hint: `from ${formatRate(BITS_PER_SECOND_MIN)} to ${formatRate(BITS_PER_SECOND_MAX)}`,
  });
}

/** The user of the software NIC; never root. */
function parseUser(text: string | undefined): { uid: number; gid: number } {
  if (text === undefined) return NIC_USER;
  const match = /^([1-9]\d{0,9}):([1-9]\d{0,9})$/.exec(text);
  const [uid, gid] = [Number(match?.[1]), Number(match?.[2])];
  // The last number means "leave it as it is" to setuid(2).
  if (match !== null && uid < ID_NONE && gid < ID_NONE) return { uid, gid };
  throw new ArrakisError('ARK_USAGE', `--nic-user is not ${text}`, {
    hint: 'two numbers that no user of this machine has, such as 64983:64983',
  });
}

/** The policy, before anything is touched: a file that cannot be used keeps the daemon from starting. */
function openPolicy({ policy, network }: Options, log: Log): PolicyStore {
  const file = policy ?? defaultPolicyPath(process.getuid!());
  const own = { [SOFT_NIC]: [networkOf(network)] };
  const environment = () => machineEnvironment(own);
  return PolicyStore.open({ file, required: policy !== null, environment }, log);
}

/** The TAP of soft0; null, with a warning, on a machine that has no TUN/TAP. */
function openUplink({ tapName, network }: Options, log: Log): Uplink | null {
  if (tapName === null) return null;
  try {
    return Uplink.open(tapName, network.address, network.prefix);
  } catch (error) {
    if (!(error instanceof ArrakisError) || error.code === 'ARK_IN_USE') throw error;
    log('warn', 'soft0 has no uplink', { error: error.message, hint: error.hint ?? '' });
    return null;
  }
}

/** The software NIC: that of the daemon before when it is what we want, with nothing left of it otherwise. */
function softNic(options: Options, keeping: Safekeeping, log: Log, logFd: number) {
  const { dir, network, tapName, nicCpus: cpus, nicUser: user } = options;
  const { nicRate: bitsPerSecond } = options;
  const name = SOFT_NIC;
  const incarnation = nextIncarnation(keeping);
  const before = keeping.claim('device', name);
  const wanted = softNicConfig({ network, tapName, user, cpus, bitsPerSecond });
  const inherited = before === null ? null : inheritSoftNic(before, wanted);
  // One whose keeper died as well ends by itself, but has the TAP until then.
  if (inherited?.process === undefined) endOrphans(dir);
  const uplink = inherited === null ? openUplink(options, log) : inherited.uplink;
  const process = inherited?.process;
  const isMoved = before !== null && !isSameNetwork(before, wanted);
  const place = {
    name,
    owner: dir,
    isMoved,
    network,
    tapName,
    uplink,
    user,
    cpus,
    bitsPerSecond,
    logFd,
  };
  return {
    isInherited: process !== undefined,
    make: (events: DeviceEvents) =>
      new SoftNic({ ...place, events, incarnation, inherited: process }),
  };
}

function start(
  options: Options,
  directory: RunDirectory,
  keeping: Safekeeping,
  { log, logFd, policy }: { log: Log; logFd: number; policy: PolicyStore },
): Daemon {
  const { dir, interfaces, nicUser } = options;
  const nic = softNic(options, keeping, log, logFd);
  if (!nic.isInherited) directory.makePorts(nicUser);
  const daemon = new Daemon({
    directory,
    keeping,
    policy,
    log,
    openInterface: afXdpOpener(linkAlias(dir)),
    devices: [nic.make],
    interfaces,
    nicUid: nicUser?.uid ?? null,
  });
  if (process.getuid!() === 0) {
    const { vnics } = daemon.plane;
    const removed = removeStaleLinks(linkAlias(dir), (alias) =>
      vnics.has(Number(alias.slice(linkAlias(dir).length))),
    );
    if (removed.length > 0) log('warn', 'removed links of a daemon that was killed', { removed });
  }
  return daemon;
}

/**
 * A policy that cannot be used, and the journal of a later version, are errors before anything is touched. What a daemon
 * before has left waits for one that can start.
 */
function orLeave<T>(directory: RunDirectory, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (Safekeeping.isIn(directory.path)) directory.leave();
    else directory.release();
    throw error;
  }
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  const excess = dropCapabilities();
  const { dir, keepMs } = options;
  const directory = RunDirectory.claim(dir);
  const logFd = options.logToFile ? fs.openSync(logPath(dir), 'a', 0o640) : STDERR;
  const log = logTo(logFd);
  const policy = orLeave(directory, () => openPolicy(options, log));
  const keeping = orLeave(directory, () => Safekeeping.open({ dir, keepMs, log, logFd }));
  let daemon: Daemon;
  try {
    daemon = start(options, directory, keeping, { log, logFd, policy });
  } catch (error) {
    // What the daemon before had waits for one that can start.
    if (keeping.isInherited) directory.leave();
    else {
      keeping.close();
      directory.release();
    }
    throw error;
  }
  if (excess.length > 0) {
    log('warn', 'capabilities that are not needed stay: there is no CAP_SETPCAP', { excess });
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => void daemon.stop(signal));
  }
  if (options.endWithStdin) {
    process.stdin.on('close', () => void daemon.stop('standard input has ended')).resume();
  }
  // Also when the terminal that started it goes; the daemon stays. What fails is in the log.
  process.on('SIGHUP', () => void policy.reload(daemon.plane).catch(() => {}));
  // Domains of the daemon before have what its policy gave.
  await policy.apply(daemon.plane);
  log('info', 'serving', {
    pid: process.pid,
    version: daemon.plane.version,
    dir: options.dir,
    network: `${formatIpv4(options.network.address)}/${options.network.prefix}`,
  });
  await daemon.ended;
  process.exit(0);
}

main().catch((error: Error) => {
  const { code, message, hint } = error instanceof ArrakisError ? errorToWire(error) : usage(error);
  logTo(STDERR)('error', message, { code, ...(hint === undefined ? {} : { hint }) });
  process.exit(code === 'ARK_ALREADY_RUNNING' ? EXIT_ALREADY_RUNNING : 1);
});

function usage(error: Error): { code: string; message: string; hint?: string } {
  const wrong = String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS');
  if (wrong) return { code: 'ARK_USAGE', message: error.message, hint: USAGE };
  return { code: 'ARK_INTERNAL', message: error.stack ?? error.message };
}
