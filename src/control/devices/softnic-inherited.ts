/** The software NIC of the daemon before: gone on with when it is what this daemon wants, ended otherwise. */
import { isDeepStrictEqual } from 'node:util';
import { closeFd, closeLater, shutdownSocket } from '../../ffi/fd.ts';
import { pidfdEnded, pidfdSignal, pidOfPidfd } from '../../ffi/pidfd.ts';
import { LIMITS } from '../limits.ts';
import type { Inherited } from './device.ts';
import type { InheritedProcess } from './device-process.ts';
import type { SoftNicConfig } from './softnic.ts';
import { Uplink } from './uplink.ts';

const SIGKILL = 9;

interface SavedNic extends Pick<InheritedProcess, 'pid' | 'generation' | 'restarts'> {
  readonly config: SoftNicConfig;
}

export interface InheritedNic {
  /** Absent when none was running. */
  readonly process: InheritedProcess | undefined;
  readonly uplink: Uplink | null;
}

/** Whether VNICs of the daemon before are on the network that this one is to serve. */
export function isSameNetwork({ state }: Inherited, wanted: SoftNicConfig): boolean {
  const { address, prefix } = (state as SavedNic).config;
  return address === wanted.address && prefix === wanted.prefix;
}

/** Takes over the descriptors. Null when there is nothing to go on with, and then nothing is left of it. */
export function inheritSoftNic(
  { state, fds }: Inherited,
  wanted: SoftNicConfig,
): InheritedNic | null {
  const { config, generation, restarts } = state as SavedNic;
  // A journal that was cut may speak of another process than the one whose descriptors were kept: these tell.
  const held = fds.length < 2 ? null : pidOfPidfd(fds[1]!);
  const [channelFd, pidfd, tapFd] = held === null ? [undefined, undefined, ...fds] : fds;
  const pid = held ?? 0;
  if (isDeepStrictEqual(config, wanted)) {
    try {
      const uplink = tapFd === undefined ? null : Uplink.adopt(config.tap!, tapFd);
      const process =
        pidfd === undefined
          ? undefined
          : { pid, generation, restarts, channelFd: channelFd!, pidfd };
      return { process, uplink };
    } catch {
      // The interface was deleted, or is in another namespace: a process without it is of no use.
    }
  }
  if (pidfd !== undefined) end(channelFd!, pidfd);
  if (tapFd !== undefined) closeFd(tapFd);
  return null;
}

function end(channelFd: number, pidfd: number): void {
  shutdownSocket(channelFd);
  closeLater(channelFd);
  if (!pidfdEnded(pidfd, LIMITS.shutdownMsMax)) {
    pidfdSignal(pidfd, SIGKILL);
    pidfdEnded(pidfd, LIMITS.shutdownMsMax);
  }
  closeFd(pidfd);
}
