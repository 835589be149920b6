/** A control plane on a device that only counts, and clients that ask it through the same gate as a message. */
import { ArrakisError } from '../../src/base/errors.ts';
import type { Attachment, AttachRequest, NicDevice } from '../../src/control/devices/device.ts';
import type { Outcome, Peer } from '../../src/control/handler.ts';
import type { Domain } from '../../src/control/objects/domain.ts';
import { perform } from '../../src/control/operations.ts';
import { ControlPlane, type PlaneOptions } from '../../src/control/plane.ts';
import {
  type ArgsOf,
  type EventName,
  type Operation,
  parseRequest,
  type ReplyOf,
} from '../../src/control/protocol.ts';
import type { RateSetting } from '../../src/device/rate.ts';

/** Attaches at once. `attached` has the ids of the VNICs that it serves. */
export class FakeNic implements NicDevice {
  readonly name: string;
  readonly mac = 0x020000000001;
  readonly mtu = 1500;
  readonly address = 0x0a4d0001;
  readonly prefix = 24;
  readonly gateway = 0;
  readonly sharesAddress: boolean;
  readonly assignsAddresses: boolean;
  readonly bitsPerSecond = 1e10;
  /** What the last VNIC whose filters were changed receives and sends. */
  filters: Pick<AttachRequest, 'transmit'> & { receive: AttachRequest['filters'] } = {
    receive: [],
    transmit: null,
  };
  refusesFilters = false;
  /** Every rate that was set while a VNIC was attached. */
  readonly rates: RateSetting[] = [];
  /** Of the last VNIC that was attached. */
  request: AttachRequest | null = null;
  readonly attached = new Set<number>();
  /** Attachments and detachments wait for this. */
  gate: Promise<void> = Promise.resolve();

  constructor(name: string, kind: 'softnic' | 'interface') {
    this.name = name;
    this.sharesAddress = kind === 'interface';
    this.assignsAddresses = kind === 'softnic';
  }

  describe() {
    return { kind: 'softnic' as const, state: 'running', pid: 0, restarts: 0, detail: '' };
  }

  async attach(request: AttachRequest): Promise<Attachment> {
    await this.gate;
    this.request = request;
    return this.#attachment(request.vnic);
  }

  listen(request: AttachRequest): Promise<Attachment> {
    return this.attach(request);
  }

  adopt({ vnic }: AttachRequest): Attachment {
    return this.#attachment(vnic);
  }

  settle(): void {}

  save() {
    return { state: {}, fds: [] };
  }

  async close(): Promise<void> {}

  #attachment(vnic: number): Attachment {
    this.attached.add(vnic);
    return {
      driver: 'virtio',
      grant: { vnic },
      mac: this.mac,
      mtu: this.mtu,
      regionBytes: 4096,
      fds: [0, 0],
      handedOver: () => {},
      setFilters: async (receive, transmit) => {
        await this.gate;
        if (this.refusesFilters) throw new ArrakisError('ARK_LIMIT', 'too much for the device');
        this.filters = { receive, transmit };
      },
      setRate: async (setting) => {
        await this.gate;
        this.rates.push(setting);
      },
      setDoorbell: async () => {},
      counters: async () => ({}),
      save: () => ({ state: {}, fds: [] }),
      detach: async () => {
        await this.gate;
        this.attached.delete(vnic);
      },
    };
  }
}

export interface Client extends Peer {
  readonly domain: Domain;
  /** What it was told, oldest first. */
  readonly events: ({ event: EventName } & Record<string, unknown>)[];
}

export class FakePlane {
  readonly softnic = new FakeNic('soft0', 'softnic');
  readonly ethernet = new FakeNic('eth0', 'interface');
  readonly plane: ControlPlane;
  readonly adopted: number[] = [];
  #uid = 1000;

  constructor(options: Partial<PlaneOptions> = {}) {
    this.plane = new ControlPlane({
      directory: '/nonexistent',
      version: 'test',
      log: () => {},
      openInterface: (name) => {
        throw new ArrakisError('ARK_NOT_FOUND', name);
      },
      clock: () => 1000,
      nicUid: 64983,
      host: { adoptChannel: (fd) => this.adopted.push(fd), shutdown: () => {} },
      ...options,
    });
    this.plane.devices.add(this.softnic);
    this.plane.devices.add(this.ethernet);
  }

  /** A domain of a user of its own; with `privileged` it may do anything. */
  client(options: { privileged?: boolean; name?: string } = {}): Client {
    const { privileged = false, name = 'app' } = options;
    const uid = privileged ? 0 : ++this.#uid;
    const identity = { uid, gid: uid, pid: uid };
    const domain = this.plane.addDomain({ ...identity, name, privileged, prepared: false });
    return this.speakFor(domain);
  }

  /** Whoever holds the channel of `domain`. */
  speakFor(domain: Domain): Client {
    const events: Client['events'] = [];
    domain.sender = (message) => events.push(message as Client['events'][0]);
    const { uid, gid, groups, exe, pid } = domain;
    return { uid, gid, groups, exe, pid, domain, events, adopt: () => {} };
  }

  async ask<O extends Operation>(peer: Peer, op: O, args: ArgsOf<O>): Promise<ReplyOf<O>> {
    const outcome: Outcome<O> = await this.perform(peer, op, args);
    outcome.sent?.();
    return outcome.reply;
  }

  async perform<O extends Operation>(peer: Peer, op: O, args: ArgsOf<O>): Promise<Outcome<O>> {
    const request = parseRequest(JSON.stringify({ id: 1, op, ...args }), 0);
    return (await perform(this.plane, { peer, fds: [] }, request)) as Outcome<O>;
  }
}
