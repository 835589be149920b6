/**
 * What `arrakis doctor` looks at: can this machine do it, what is missing, what was left behind. A check only looks;
 * `fix` is the one command that mends it.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { connect } from '../../arrakis/index.ts';
import { findLeftovers, keeperOf } from '../../control/leftovers.ts';
import {
  logPath,
  pidPath,
  runDirectory,
  socketCandidates,
  socketPath,
} from '../../control/paths.ts';
import { isClaimed, readPid } from '../../control/run-directory.ts';
import { programName } from '../../ffi/bpf.ts';
import { driverName, getTxChecksum } from '../../ffi/ethtool.ts';
import { type Link, listLinks } from '../../ffi/netlink/index.ts';
import { probeXsk } from '../../ffi/xsk.ts';

export type Status = 'ok' | 'warn' | 'fail' | 'info';

export interface Finding {
  check: string;
  status: Status;
  detail: string;
  /** The one command, or sentence, that mends it. */
  fix?: string;
}

const isRoot = (): boolean => process.getuid?.() === 0;

export function allFindings(): Finding[] {
  return [
    kernel(),
    processors(),
    privileges(),
    afXdp(),
    tap(),
    bpffs(),
    daemon(),
    ...leftovers(),
    ...interfaces(),
    ...peers(),
  ];
}

function kernel(): Finding {
  const release = os.release();
  const [major = 0, minor = 0] = release.split('.').map(Number);
  const enough = major > 5 || (major === 5 && minor >= 10);
  return {
    check: 'kernel',
    status: enough ? 'ok' : 'fail',
    detail: `Linux ${release}, Node ${process.version}`,
    ...(enough ? {} : { fix: 'use Linux 5.10 or later' }),
  };
}

function processors(): Finding {
  const count = os.availableParallelism();
  const few = count < 2;
  return {
    check: 'processors',
    status: few ? 'warn' : 'ok',
    detail: `${count}; a polling application and a polling device want one each`,
    ...(few ? { fix: 'give the machine a second processor' } : {}),
  };
}

function privileges(): Finding {
  if (isRoot()) return { check: 'privileges', status: 'ok', detail: 'root: every driver' };
  return {
    check: 'privileges',
    status: 'info',
    detail: 'not root: the software NIC between applications only',
    fix: 'sudo arrakis up: adds AF_XDP on interfaces and the TAP uplink to the kernel',
  };
}

function afXdp(): Finding {
  const probe = probeXsk();
  const name = 'AF_XDP';
  if (probe === 'ok') return { check: name, status: 'ok', detail: 'sockets can be made' };
  if (probe === 'denied') {
    return { check: name, status: 'info', detail: 'in the kernel; making sockets needs root' };
  }
  return {
    check: name,
    status: 'fail',
    detail: 'this kernel has no AF_XDP',
    fix: 'use a kernel with CONFIG_XDP_SOCKETS=y; the software NIC works without',
  };
}

function tap(): Finding {
  const there = fs.existsSync('/dev/net/tun');
  return {
    check: 'TAP',
    status: there ? 'ok' : 'warn',
    detail: there ? '/dev/net/tun' : 'no /dev/net/tun: the software NIC has no uplink',
    ...(there ? {} : { fix: 'modprobe tun' }),
  };
}

function bpffs(): Finding {
  const mounted = fs.readFileSync('/proc/mounts', 'utf8').includes(' /sys/fs/bpf bpf ');
  return {
    check: 'bpffs',
    status: 'info',
    detail: mounted ? 'mounted; nothing of ours is pinned there' : 'not mounted, and not needed',
  };
}

function daemon(): Finding {
  const dir = runDirectory(process.getuid!());
  const keeper = keeperOf(dir);
  if (isClaimed(dir)) {
    const pid = `pid ${readPid(pidPath(dir))} in ${dir}`;
    // The daemon starts another by itself.
    const status = keeper === 0 ? 'warn' : 'ok';
    const detail = `${pid}, ${keeper === 0 ? 'without a keeper for now' : `keeper pid ${keeper}`}`;
    return { check: 'arrakisd', status, detail };
  }
  if (keeper !== 0) {
    return {
      check: 'arrakisd',
      status: 'warn',
      detail: `was killed in ${dir}; its keeper, pid ${keeper}, holds everything for the next one, for a while`,
      fix: 'arrakis up; or give it up: arrakis doctor --fix',
    };
  }
  const other = socketCandidates(process.getuid!()).find(
    (file) => file !== socketPath(dir) && fs.existsSync(file),
  );
  if (other !== undefined) {
    const detail = `none of your own in ${dir}; commands go to ${other}`;
    return { check: 'arrakisd', status: 'info', detail };
  }
  return { check: 'arrakisd', status: 'info', detail: `not running in ${dir}`, fix: 'arrakis up' };
}

/** Device processes that do not run, as the daemon tells. */
export async function deviceFindings(): Promise<Finding[]> {
  const dir = runDirectory(process.getuid!());
  if (!isClaimed(dir)) return [];
  try {
    const domain = await connect({ socket: socketPath(dir) });
    const { devices } = (await domain.request('device.list', {})).reply;
    await domain.close();
    return devices
      .filter(({ kind, state }) => kind === 'softnic' && state !== 'running')
      .map(({ name, state, restarts }) => ({
        check: `device ${name}`,
        status: 'warn',
        detail: `${state}, after ${restarts} restarts; its VNICs wait`,
        fix: `see why it ends: ${logPath(dir)}`,
      }));
  } catch (error) {
    const { message } = error as Error;
    return [{ check: 'arrakisd', status: 'fail', detail: `it does not answer: ${message}` }];
  }
}

/** What a keeper holds is not left behind: `daemon` tells of it. */
function leftovers(): Finding[] {
  const dir = runDirectory(process.getuid!());
  if (keeperOf(dir) !== 0) return [];
  return findLeftovers(dir).map(({ description }) => ({
    check: 'left behind',
    status: 'warn' as const,
    detail: description,
    fix: 'arrakis doctor --fix',
  }));
}

/** Interfaces that a VNIC could stand on, and what would get in its way there. */
function interfaces(): Finding[] {
  return listLinks()
    .filter((link) => link.name !== 'lo' && !link.name.startsWith('ark') && link.up)
    .map(inspect);
}

function inspect(link: Link): Finding {
  const check = `interface ${link.name}`;
  const programId = link.xdpProgId ?? 0;
  if (programId > 0 && !isOurs(programId)) {
    return {
      check,
      status: 'warn',
      detail: `an XDP program is attached already (id ${programId})`,
      fix: `ip link set ${link.name} xdp off, unless it is wanted`,
    };
  }
  const taken = programId > 0 ? ', taken by arrakisd' : '';
  const shape = `${driverOf(link)}, ${link.numRxQueues} queue(s), MTU ${link.mtu}${taken}`;
  const peer =
    link.kind === 'veth' ? listLinks().find((l) => l.index === link.peerIndex) : undefined;
  if (peer !== undefined && checksumsUnfinished(peer.name)) {
    return {
      check,
      status: 'warn',
      detail: `${shape}; its peer ${peer.name} leaves checksums unfinished`,
      fix: `ethtool -K ${peer.name} tx off`,
    };
  }
  if (link.peerIsForeign) {
    return {
      check,
      status: 'ok',
      detail: `${shape}; its peer is in another namespace`,
      fix: 'there: ethtool -K PEER tx off txvlan off, if UDP does not arrive or it sends on VLANs',
    };
  }
  return { check, status: 'ok', detail: shape };
}

/** The daemon's own program, as far as we may ask. */
function isOurs(programId: number): boolean {
  try {
    return programName(programId).startsWith('ark_');
  } catch {
    return false;
  }
}

function driverOf(link: Link): string {
  try {
    return driverName(link.name);
  } catch {
    return link.kind ?? 'unknown driver';
  }
}

function checksumsUnfinished(name: string): boolean {
  try {
    return getTxChecksum(name);
  } catch {
    return false;
  }
}

/** Programs that `arrakis bench` compares with. */
function peers(): Finding[] {
  const wanted = { gcc: 'gcc', 'dpdk-testpmd': 'dpdk-dev' };
  const dirs = (process.env.PATH ?? '').split(':').concat('/usr/bin', '/usr/sbin');
  return Object.entries(wanted).map(([program, debianPackage]) => {
    const there = dirs.some((dir) => fs.existsSync(path.join(dir, program)));
    return {
      check: `peer ${program}`,
      status: there ? ('ok' as const) : ('info' as const),
      detail: there ? 'for arrakis bench' : 'not installed: arrakis bench leaves it out',
      ...(there ? {} : { fix: `apt-get install ${debianPackage}` }),
    };
  });
}
