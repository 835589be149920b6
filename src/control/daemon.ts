/**
 * arrakisd: the run directory, the listening socket, the connections, and the control plane behind them.
 * It touches no packet. When it ends in order the device processes end with it, and everything a client held is
 * reclaimed; when it is killed the next one goes on with all of that (keeping.ts, adopt.ts).
 */
import { VERSION } from '../base/version.ts';
import { closeFd, closeLater, shutdownSocket } from '../ffi/fd.ts';
import { acceptUnix, type Credentials, passRights, peerCredentials } from '../ffi/unix.ts';
import { FdWatch } from '../ffi/watch.ts';
import { adoptAll, announceResumed, firstId } from './adopt.ts';
import { savedCapabilities } from './caps/keeping.ts';
import { Connection } from './connection.ts';
import type { DeviceEvents, NicDevice, OpenInterface } from './devices/device.ts';
import type { Safekeeping } from './keeping.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';
import { closeDomain, type Domain } from './objects/domain.ts';
import { ControlPlane } from './plane.ts';
import type { PolicyStore } from './policy/store.ts';
import type { RunDirectory } from './run-directory.ts';

const ACCEPTS_PER_TURN_MAX = 16;

export interface DaemonOptions {
  /** Claimed; the daemon releases it at its end. */
  readonly directory: RunDirectory;
  /** What the daemon before had, and where this one keeps what it has. Closed at the daemon's end. */
  readonly keeping: Safekeeping;
  readonly policy: PolicyStore;
  readonly log: Log;
  readonly openInterface: OpenInterface;
  /** Devices that are there from the start, made with the daemon's event sink. */
  readonly devices: readonly ((events: DeviceEvents) => NicDevice)[];
  /** Interfaces to take at start. */
  readonly interfaces: readonly string[];
  /** User of the device processes, when it is one of their own. */
  readonly nicUid: number | null;
}

export class Daemon {
  readonly plane: ControlPlane;
  readonly #directory: RunDirectory;
  readonly #keeping: Safekeeping;
  readonly #listenFd: number;
  #watch: FdWatch | null;
  /** Until it accepts again. */
  #pause: NodeJS.Timeout | null = null;
  readonly #connections = new Set<Connection>();
  readonly #perUid = new Map<number, number>();
  readonly #ended: Promise<void>;
  #end!: () => void;
  #stopping = false;
  /** There were no descriptors at the last look, and the log says so. */
  #isStarved = false;

  constructor(options: DaemonOptions) {
    const { keeping } = options;
    this.#directory = options.directory;
    this.#keeping = keeping;
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.plane = new ControlPlane({
      directory: options.directory.path,
      version: VERSION,
      log: options.log,
      openInterface: options.openInterface,
      clock: Date.now,
      keeping,
      firstId: firstId(keeping),
      capabilities: savedCapabilities(keeping),
      nicUid: options.nicUid,
      policy: options.policy,
      host: {
        adoptChannel: (fd, domain) => this.#serve(fd, peerCredentials(fd), domain),
        shutdown: (reason) => void this.stop(reason),
      },
    });
    const { devices } = this.plane;
    for (const make of options.devices) devices.add(make(this.plane.deviceEvents));
    adoptAll(this.plane, keeping);
    for (const name of options.interfaces) devices.require(name, true);
    this.#listenFd = keeping.claim('socket', 'control', 1)?.fds[0] ?? options.directory.listen();
    keeping.put('socket', 'control', {}, [this.#listenFd]);
    devices.settle();
    const givenUp = keeping.settle();
    if (givenUp.length > 0) options.log('warn', 'not taken over', { objects: givenUp });
    announceResumed(this.plane);
    this.#watch = this.#listen();
  }

  /** Resolves when the daemon has stopped. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** End in order: tell the clients, take everything back, end the devices, remove the files. */
  async stop(reason: string): Promise<void> {
    if (this.#stopping) return this.#ended;
    this.#stopping = true;
    this.plane.log('info', 'stopping', { reason });
    this.#watch?.close();
    if (this.#pause !== null) clearTimeout(this.#pause);
    shutdownSocket(this.#listenFd);
    closeFd(this.#listenFd);
    const domains = [...this.plane.domains.values(), this.plane.self];
    for (const domain of domains) domain.event('shutdown', {});
    for (const connection of this.#connections) connection.close('the daemon stops');
    await Promise.all(domains.map((domain) => closeDomain(this.plane, domain)));
    await this.plane.devices.closeAll();
    this.#keeping.close();
    this.#directory.release();
    this.plane.log('info', 'stopped');
    this.#end();
  }

  #listen(): FdWatch {
    return new FdWatch(this.#listenFd, () => this.#accept());
  }

  /**
   * Who waits stays readable, and would be tried again at every turn: a pause instead, for as long as it goes on. What ends
   * it is a descriptor that somebody closes.
   */
  #pauseAccepting(error: Error): void {
    this.#watch?.close();
    this.#watch = null;
    if (!this.#isStarved) {
      const { message } = error;
      this.plane.log('error', 'cannot accept connections for now', { error: message });
    }
    this.#isStarved = true;
    this.#pause = setTimeout(() => {
      this.#watch = this.#listen();
    }, LIMITS.acceptPauseMs);
  }

  #accept(): void {
    for (let n = 0; n < ACCEPTS_PER_TURN_MAX; n++) {
      let fd: number;
      try {
        fd = acceptUnix(this.#listenFd);
      } catch (error) {
        this.#pauseAccepting(error as Error);
        return;
      }
      if (fd < 0) return;
      if (this.#isStarved) this.plane.log('info', 'accepts connections again');
      this.#isStarved = false;
      this.#admit(fd);
    }
  }

  #admit(fd: number): void {
    const credentials = peerCredentials(fd);
    const { uid, pid } = credentials;
    this.plane.counters.connections++;
    const ofUid = this.#perUid.get(uid) ?? 0;
    const privileged = this.plane.isPrivileged(uid);
    const most = LIMITS.connectionsMax - (privileged ? 0 : LIMITS.connectionsReserved);
    if (ofUid >= LIMITS.connectionsPerUidMax || this.#connections.size >= most) {
      this.plane.counters.connectionsRefused++;
      this.plane.log('warn', 'connection refused: too many', { uid, pid });
      closeLater(fd);
      return;
    }
    // Everybody else gets EPERM from the kernel: the listening socket takes none, and what it accepts inherits that.
    if (privileged) passRights(fd, true);
    this.#serve(fd, credentials, null);
  }

  #serve(fd: number, credentials: Credentials, domain: Domain | null): void {
    const uid = domain?.uid ?? credentials.uid;
    this.#perUid.set(uid, (this.#perUid.get(uid) ?? 0) + 1);
    const connection = new Connection(this.plane, fd, credentials, domain, () => {
      this.#connections.delete(connection);
      const left = this.#perUid.get(uid)! - 1;
      if (left === 0) this.#perUid.delete(uid);
      else this.#perUid.set(uid, left);
    });
    this.#connections.add(connection);
  }
}
