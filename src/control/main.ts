/**
 * arrakisd, the process. `node dist/src/control/main.js [options]`; `arrakis up` starts it.
 *
 * Once it serves it writes one line `{"message":"serving",...}` to its log. SIGTERM and SIGINT end it in order. The exit
 * code is 0 after an orderly end, 1 when it could not start.
 */
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { formatIpv4, parseCidr } from '../base/address.ts';
import { parseCpus } from '../base/cpus.ts';
import { ArrakisError } from '../base/errors.ts';
import { removeStaleLinks } from '../drivers/af-xdp/attach.ts';
import { Daemon } from './daemon.ts';
import { afXdpOpener } from './devices/af-xdp.ts';
import { SoftNic } from './devices/softnic.ts';
import { Uplink } from './devices/uplink.ts';
import { linkAlias } from './leftovers.ts';
import { NIC_USER } from './limits.ts';
import { type Log, logTo } from './log.ts';
import { logPath, runDirectory } from './paths.ts';
import { dropCapabilities } from './privileges.ts';
import { errorToWire } from './protocol.ts';
import { RunDirectory } from './run-directory.ts';

const USAGE = `arrakisd [--dir DIR] [--tap-address IP/LENGTH] [--tap-name NAME] [--no-tap] [--device IF]...
         [--nic-cpu LIST] [--nic-user UID:GID] [--log]
  --dir DIR          run directory (ARRAKIS_DIR; root: /run/arrakis)
  --tap-address CIDR network of soft0 and the host's address on it (10.77.0.1/24)
  --tap-name NAME    interface of the host on that network (arrakis0); root only
  --no-tap           soft0 without the host
  --device IF        take this interface from the start; may be given again
  --nic-cpu LIST     processors of the software NIC, such as 1 or 2-3 (any)
  --nic-user UID:GID whom the software NIC becomes; nobody else may be that user; root only (64983:64983)
  --log              write the log to DIR/arrakisd.log instead of stderr
`;
const STDERR = 2;
const ID_NONE = 2 ** 32 - 1;

interface Options {
  dir: string;
  network: { address: number; prefix: number };
  tapName: string | null;
  interfaces: string[];
  nicCpus: number[] | null;
  nicUser: { uid: number; gid: number } | null;
  logToFile: boolean;
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
      'nic-cpu': { type: 'string' },
      'nic-user': { type: 'string' },
      log: { type: 'boolean', default: false },
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
    nicCpus: values['nic-cpu'] === undefined ? null : parseCpus(values['nic-cpu']),
    nicUser: root ? parseUser(values['nic-user']) : null,
    logToFile: values.log,
  };
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

function start(options: Options, directory: RunDirectory): { daemon: Daemon; log: Log } {
  const { dir, network, interfaces, nicCpus: cpus, nicUser: user } = options;
  const logFd = options.logToFile ? fs.openSync(logPath(dir), 'a', 0o640) : STDERR;
  const log = logTo(logFd);
  const root = process.getuid!() === 0;
  directory.makePorts(user);
  if (root) {
    const removed = removeStaleLinks(linkAlias(dir));
    if (removed.length > 0) log('warn', 'removed links of a daemon that was killed', { removed });
  }
  const uplink = openUplink(options, log);
  const daemon = new Daemon({
    directory,
    log,
    openInterface: afXdpOpener(linkAlias(dir)),
    devices: [
      (events) =>
        new SoftNic({ name: 'soft0', owner: dir, network, uplink, user, cpus, logFd, events }),
    ],
    interfaces,
    nicUid: user?.uid ?? null,
  });
  return { daemon, log };
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  const excess = dropCapabilities();
  const directory = RunDirectory.claim(options.dir);
  let started: { daemon: Daemon; log: Log };
  try {
    started = start(options, directory);
  } catch (error) {
    directory.release();
    throw error;
  }
  const { daemon, log } = started;
  if (excess.length > 0) {
    log('warn', 'capabilities that are not needed stay: there is no CAP_SETPCAP', { excess });
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => void daemon.stop(signal));
  }
  // The terminal that started it may go; the daemon stays.
  process.on('SIGHUP', () => {});
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
  process.exit(1);
});

function usage(error: Error): { code: string; message: string; hint?: string } {
  const wrong = String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS');
  if (wrong) return { code: 'ARK_USAGE', message: error.message, hint: USAGE };
  return { code: 'ARK_INTERNAL', message: error.stack ?? error.message };
}
