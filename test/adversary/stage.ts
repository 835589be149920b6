/**
 * The stage of the adversary tests: a daemon with a policy for two users, the software NIC and an interface, and on one of
 * them a neighbour at work. What the attacker does is the tests' business; that the neighbour got to feel nothing, and
 * that nothing of the attacker is left, is said here.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Domain } from '../../src/arrakis/index.ts';
import { closeFd, readFd } from '../../src/ffi/fd.ts';
import { requireLink } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { fdCount, softnicPid, TestDaemon, temporaryDirectory } from '../crash/daemon.harness.ts';
import { LeakCheck } from '../support/leaks.ts';
import { connect, Namespace } from '../support/network.ts';
import { until } from '../support/until.ts';
import { Actor } from './process.ts';

/** Two users that nobody else is. */
export const NEIGHBOUR = 64_911;
export const ATTACKER = 64_912;
/** What each of the attacker's VNICs may send and receive. */
export const ATTACKER_RATE = { bits: 40_000_000, packets: 20_000 } as const;
/** VNICs that the attacker's user may have at once. */
export const ATTACKER_VNICS = 8;

const WAIT_MS = 20_000;
/** On a machine that does other things too, what is served late is not refused. A stall of this length is one. */
const DELAY_MS_MAX = 3_000;

/** Where the VNICs of a test are. */
export interface Shape {
  readonly title: string;
  readonly device: string;
  /** First three bytes of the addresses there. */
  readonly network: string;
}

export const SOFTNIC: Shape = { title: 'software NIC', device: 'soft0', network: '10.77.0' };
export const SWITCHED: Shape = { title: 'AF_XDP switched', device: 'adv0', network: '10.79.0' };
export const SHAPES: readonly Shape[] = [SOFTNIC, SWITCHED];

/** Specs of the two ends of the neighbour's echo, and of the attacker's VNIC `n` from 0. */
const neighbourSpec = ({ device, network }: Shape, n: number): string =>
  `${device},ip=${network}.${17 + n}/24`;
export const attackerIp = ({ network }: Shape, n = 0): string => `${network}.${33 + n}`;
export const attackerSpec = (shape: Shape, n = 0): string =>
  `${shape.device},ip=${attackerIp(shape, n)}/24`;

const policyText = (): string => {
  const rule = (block: string, more: string): string =>
    `{devices: [soft0, adv0], addresses: [10.77.0.${block}, 10.79.0.${block}], ${more}}`;
  const { bits, packets } = ATTACKER_RATE;
  const limits = `rate: {bits: ${bits}, packets: ${packets}}, vnics: ${ATTACKER_VNICS}`;
  return `users: {${NEIGHBOUR}: ${rule('16/28', 'rate: any')}, ${ATTACKER}: ${rule('32/28', limits)}}\n`;
};

/** What the neighbour says of the time since its last report. */
export interface Report {
  readonly sent: number;
  readonly returned: number;
  /** Came back other than they went, or twice. */
  readonly corrupt: number;
  /** Frames that it did not send itself. */
  readonly foreign: number;
  readonly p50Us: number;
  readonly slowestMs: number;
  readonly controlRequests: number;
  readonly controlSlowestMs: number;
  /** Its VNICs, its region and its names are as they were. */
  readonly intact: boolean;
}

export interface NeighbourInfo {
  readonly domain: number;
  readonly vnics: readonly number[];
  readonly macs: readonly number[];
  readonly addresses: readonly number[];
  readonly caps: readonly number[];
  readonly region: { readonly id: number; readonly cap: number };
  readonly endpoint: { readonly id: number; readonly cap: number; readonly path: string };
  readonly watch: number;
  readonly secret: string;
}

export class Neighbour {
  readonly actor: Actor;
  readonly info: NeighbourInfo;

  constructor(actor: Actor, info: NeighbourInfo) {
    this.actor = actor;
    this.info = info;
  }

  /** What it felt since the last time; everything that was under way is home. */
  report(): Promise<Report> {
    return this.actor.act('report');
  }

  /** Fails unless it lost nothing, read nothing of others, and was served in time. */
  async assertUnharmed(): Promise<Report> {
    const report = await this.report();
    const text = JSON.stringify(report);
    assert.ok(report.sent > 0, text);
    assert.equal(report.returned, report.sent, `frames were lost: ${text}`);
    assert.equal(report.corrupt, 0, text);
    assert.equal(report.foreign, 0, text);
    assert.ok(report.intact, text);
    assert.ok(report.slowestMs < DELAY_MS_MAX, text);
    assert.ok(report.controlRequests > 0 && report.controlSlowestMs < DELAY_MS_MAX, text);
    return report;
  }
}

export type Counters = Record<string, number> & { drops?: Record<string, number> };

export class Stage {
  readonly daemon: TestDaemon;
  readonly root: Domain;
  readonly #leaks: LeakCheck;
  readonly #directory: string;
  readonly #far: Namespace;
  readonly #link: { remove(): void };
  readonly #actors: Actor[] = [];
  #attackers: Actor[] = [];
  #nicPid = 0;
  #fds: number[] = [];

  private constructor(
    daemon: TestDaemon,
    root: Domain,
    rest: { leaks: LeakCheck; directory: string; far: Namespace; link: { remove(): void } },
  ) {
    this.daemon = daemon;
    this.root = root;
    this.#leaks = rest.leaks;
    this.#directory = rest.directory;
    this.#far = rest.far;
    this.#link = rest.link;
  }

  /** The test process is in a network namespace of its own (`isolateNetwork`). */
  static async open(args: readonly string[] = []): Promise<Stage> {
    const leaks = new LeakCheck();
    const directory = temporaryDirectory();
    const policy = path.join(directory, 'policy.yaml');
    fs.writeFileSync(policy, policyText());
    const far = new Namespace();
    const link = connect(far, {
      local: { name: 'adv0', ip: '10.79.0.1', prefix: 24 },
      remote: { name: 'adv1', ip: '10.79.0.2', prefix: 24 },
    });
    const daemon = await TestDaemon.start({ args: ['--no-tap', '--policy', policy, ...args] });
    const root = await daemon.connect({ name: 'root' });
    return new Stage(daemon, root, { leaks, directory, far, link });
  }

  /** The neighbour, at work on `shape`. What the daemon and the NIC have open then is what they may have. */
  async neighbour(shape: Shape): Promise<Neighbour> {
    const args = [neighbourSpec(shape, 0), neighbourSpec(shape, 1)];
    const actor = await this.#start('neighbour.app.js', NEIGHBOUR, { args });
    const info = await actor.act<NeighbourInfo>('open');
    this.#nicPid = await softnicPid(this.root);
    this.#fds = this.#fdCounts();
    return new Neighbour(actor, info);
  }

  async attacker(options: { uid?: number; fd?: number } = {}): Promise<Actor> {
    const { uid = ATTACKER, ...rest } = options;
    const actor = await this.#start('attacker.app.js', uid, rest);
    this.#attackers.push(actor);
    return actor;
  }

  async daemonCounters(): Promise<Record<string, number>> {
    return (await this.root.request('stats', {})).reply.daemon;
  }

  /** Memory of the daemon, bytes. */
  async daemonMemory(): Promise<{ rss: number }> {
    const text = await fs.promises.readFile(`/proc/${this.daemon.pid}/status`, 'utf8');
    return { rss: 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)![1]) };
  }

  async counters(vnic: number): Promise<Counters> {
    const { vnics } = (await this.root.request('stats', { after: vnic - 1 })).reply;
    return vnics.find((entry) => entry.vnic === vnic)!.counters as unknown as Counters;
  }

  /** What goes out to the far end of the interface's wire from now on; `close` says what that was. */
  listen(): { close(): Buffer[] } {
    const fd = this.#far.run(() => openPacketSocket(requireLink('adv1').index));
    const buffer = Buffer.alloc(4096);
    const far = this.#far.run(() => requireLink('adv1').mac);
    return {
      close: () => {
        const heard: Buffer[] = [];
        for (let length = readFd(fd, buffer); length > 0; length = readFd(fd, buffer)) {
          const frame = Buffer.from(buffer.subarray(0, length));
          if (frame.readUIntBE(6, 6) !== far) heard.push(frame);
        }
        closeFd(fd);
        return heard;
      },
    };
  }

  /** Pids that are nobody's business but root's: the daemon, the NIC. */
  get daemonPids(): readonly number[] {
    return [this.daemon.pid, this.#nicPid];
  }

  /** The attackers end. All that they had is taken back: objects, descriptors, and the NIC is the one that it was. */
  async endAttackers(): Promise<void> {
    for (const actor of this.#attackers) await actor.kill();
    this.#attackers = [];
    const left = async (): Promise<string[]> => {
      const { objects } = (await this.root.request('list', {})).reply;
      const own = objects.filter(
        ({ kind, detail }) => kind === 'domain' && detail.uid === ATTACKER,
      );
      const owners = new Set(own.map(({ id }) => id));
      return objects.filter((o) => owners.has(o.id) || owners.has(o.owner)).map((o) => o.name);
    };
    await until(async () => (await left()).length === 0, WAIT_MS, 'the attacker is gone');
    const same = (): boolean => this.#fdCounts().every((count, i) => count <= this.#fds[i]!);
    await until(same, WAIT_MS, `descriptors: ${this.#fds} before`);
    assert.equal(await softnicPid(this.root), this.#nicPid, 'the software NIC was not restarted');
    const { defects } = await this.daemonCounters();
    assert.equal(defects, 0, this.daemon.log);
  }

  async close(): Promise<void> {
    for (const actor of this.#actors) await actor.kill();
    await this.root.close();
    await this.daemon.close();
    this.#link.remove();
    this.#far.close();
    fs.rmSync(this.#directory, { recursive: true });
    await this.#leaks.assertNone();
  }

  #fdCounts(): number[] {
    return this.daemonPids.map(fdCount);
  }

  async #start(
    script: string,
    uid: number,
    more: { args?: readonly string[]; fd?: number },
  ): Promise<Actor> {
    const actor = await Actor.start({ script, uid, socket: this.daemon.socket, ...more });
    this.#actors.push(actor);
    return actor;
  }
}
