/** What a policy is checked against: the users, devices, programs and processors of a machine. */
import fs from 'node:fs';
import { netmask } from '../../base/address.ts';
import { listAddresses, listLinks } from '../../ffi/netlink/index.ts';
import { UserDatabase } from './users.ts';
import type { Interval } from './values.ts';

/** What stands at the path of a program. */
export type ProgramState = 'ok' | 'absent' | 'writable' | { readonly linkTo: string };

export interface PolicyEnvironment {
  readonly users: UserDatabase;
  /** Networks of a device, as far as they are known; null when there is no such device now. */
  device(name: string): readonly Interval[] | null;
  program(path: string): ProgramState;
  /** How many processors the machine has, numbered from 0. */
  readonly processors: number;
}

/** Devices of the daemon that are no interfaces: their networks, where they are known. */
export type OwnDevices = Readonly<Record<string, readonly Interval[]>>;

export function networkOf({ address, prefix }: { address: number; prefix: number }): Interval {
  const first = (address & netmask(prefix)) >>> 0;
  return { first, last: first + 2 ** (32 - prefix) - 1 };
}

/** This machine as it is now. */
export function machineEnvironment(own: OwnDevices): PolicyEnvironment {
  return {
    users: UserDatabase.read(),
    device: (name) => (Object.hasOwn(own, name) ? own[name]! : networksOf(name)),
    program: programState,
    processors: configuredProcessors(),
  };
}

function networksOf(name: string): Interval[] | null {
  const link = listLinks().find((one) => one.name === name);
  if (link === undefined) return null;
  return listAddresses()
    .filter(({ index }) => index === link.index)
    .map(networkOf);
}

const S_IWGRP_IWOTH = 0o022;

/** Writable means: by others than root and the daemon's user, who then decide what has its capabilities. */
function programState(path: string): ProgramState {
  try {
    const target = fs.realpathSync(path);
    if (target !== path) return { linkTo: target };
    const { uid, mode } = fs.statSync(path);
    const ours = uid === 0 || uid === process.getuid!();
    return ours && (mode & S_IWGRP_IWOTH) === 0 ? 'ok' : 'writable';
  } catch {
    return 'absent';
  }
}

/** Also those that are offline: /sys/devices/system/cpu/possible is a list such as `0-3`. */
function configuredProcessors(): number {
  const possible = fs.readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim();
  return Number(possible.split(/[-,]/).at(-1)) + 1;
}
