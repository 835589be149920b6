/**
 * The control plane's state: objects, domains, VNICs, devices. No sockets: the daemon hands it requests and is its
 * `host`. Operations are in objects/, one file a kind.
 */

import type { InitialCapabilities } from './caps/initial.ts';
import { capabilityKeeping } from './caps/keeping.ts';
import { type Capability, type CapSnapshot, CapSpace } from './caps/space.ts';
import type { DeviceEvents, OpenInterface } from './devices/device.ts';
import { type Keeping, NOTHING_KEPT } from './keeping.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';
import { CaptureTable } from './objects/capture.ts';
import { DeviceTable } from './objects/device.ts';
import { Domain, type DomainOptions, type SavedDomain } from './objects/domain.ts';
import { EndpointTable } from './objects/endpoint.ts';
import { NameTable } from './objects/name-table.ts';
import { NetworkTable } from './objects/network.ts';
import { RegionTable } from './objects/region-share.ts';
import { ObjectTable } from './objects/table.ts';
import { type Vnic, vnicGone, vnicQueueBroken, vnicReattached } from './objects/vnic.ts';
import { Placement } from './placement.ts';
import type { PolicyStore } from './policy/store.ts';
import { Repossessions } from './repossessions.ts';

/** What the plane needs of the daemon around it. */
export interface Host {
  /** Serve `fd`, our end of the control channel of `domain`, and own it. */
  adoptChannel(fd: number, domain: Domain): void;
  shutdown(reason: string): void;
}

export interface PlaneOptions {
  readonly directory: string;
  readonly version: string;
  readonly log: Log;
  readonly host: Host;
  readonly openInterface: OpenInterface;
  /** Unix time, ms. */
  readonly clock: () => number;
  /** What is to outlive the daemon. Default: nothing. */
  readonly keeping?: Keeping;
  /** Of the objects; above all those of the daemon before. Default 1. */
  readonly firstId?: number;
  /** Of the daemon before. Default: none. */
  readonly capabilities?: CapSnapshot;
  /** User of the device processes, whom no domain may be; null when it is the daemon's. */
  readonly nicUid: number | null;
  /** What a domain has from the start; default: nothing. */
  readonly initialCapabilities?: InitialCapabilities;
  /** Where those come from, and how many VNICs users may have; default: nowhere, and as many as the limits say. */
  readonly policy?: PolicyStore;
}

export class ControlPlane {
  readonly directory: string;
  readonly version: string;
  readonly pid = process.pid;
  readonly uid: number;
  readonly nicUid: number | null;
  readonly log: Log;
  readonly host: Host;
  readonly keeping: Keeping;
  readonly objects: ObjectTable;
  readonly domains = new Map<number, Domain>();
  readonly vnics = new Map<number, Vnic>();
  readonly captures: CaptureTable;
  readonly placement: Placement;
  readonly caps: CapSpace;
  readonly initialCapabilities: InitialCapabilities;
  readonly policy: PolicyStore | null;
  /** What removals of capabilities have set off and has not ended yet, with what it existed by. */
  readonly stopping = new Map<Promise<void>, readonly Capability[]>();
  readonly regions: RegionTable;
  readonly endpoints: EndpointTable;
  readonly names: NameTable;
  readonly network: NetworkTable;
  /** Unix time, ms. */
  readonly clock: () => number;
  readonly devices: DeviceTable;
  readonly repossessions: Repossessions;
  /** The daemon's own domain, for objects that outlive their maker's connection. */
  readonly self: Domain;
  readonly counters = {
    connections: 0,
    connectionsRefused: 0,
    requests: 0,
    requestsRefused: 0,
    badMessages: 0,
    /** Capabilities that were refused because one user would have had more than its share (caps/shares.ts). */
    sharesRefused: 0,
    /** VNICs that their device ended: they broke its protocol, or it went away. */
    vnicsGone: 0,
    defects: 0,
  };

  constructor(options: PlaneOptions) {
    this.directory = options.directory;
    this.version = options.version;
    this.log = options.log;
    this.host = options.host;
    this.uid = process.getuid!();
    this.nicUid = options.nicUid;
    this.keeping = options.keeping ?? NOTHING_KEPT;
    this.placement = new Placement({
      put: (who, cpus) => this.keeping.put('placement', who, { cpus }),
      delete: (who) => this.keeping.delete('placement', who),
    });
    this.clock = options.clock;
    this.objects = new ObjectTable(options.clock, this.keeping, options.firstId);
    const { capsPerDomainMax: madeMax, capDepthMax: depthMax } = LIMITS;
    const observer = capabilityKeeping(this.keeping);
    this.caps =
      options.capabilities === undefined
        ? new CapSpace({ madeMax, depthMax }, observer)
        : CapSpace.restore(options.capabilities, { madeMax, depthMax }, observer);
    this.policy = options.policy ?? null;
    this.initialCapabilities =
      options.initialCapabilities ?? options.policy?.initialCapabilities ?? (() => []);
    this.captures = new CaptureTable(this.objects);
    this.devices = new DeviceTable(
      options.openInterface,
      this.deviceEvents,
      options.log,
      this.keeping,
    );
    this.repossessions = new Repossessions(this.keeping, options.log);
    const { pid, uid } = this;
    const gid = process.getgid!();
    const birth = { id: 0, createdMs: options.clock() };
    const send = () => {};
    const own = { name: 'arrakisd', uid, gid, pid, privileged: true, prepared: false, send };
    this.self = this.objects.add(new Domain(birth, own));
    this.regions = new RegionTable(this);
    this.endpoints = new EndpointTable(this);
    this.names = new NameTable(this);
    this.network = new NetworkTable(this);
  }

  /** Root and the daemon's own user may do anything; everybody else has what a domain holds. */
  isPrivileged(uid: number): boolean {
    return uid === 0 || uid === this.uid;
  }

  addDomain(options: Omit<DomainOptions, 'send'>): Domain {
    const domain = new Domain(this.objects.birth(), { ...options, send: () => {} });
    this.domains.set(domain.id, this.objects.add(domain));
    return domain;
  }

  /** A domain of the daemon before, under its own id. */
  restoreDomain(id: number, { createdMs, ...saved }: SavedDomain): Domain {
    const domain = new Domain({ id, createdMs }, { ...saved, send: () => {} });
    this.domains.set(id, this.objects.add(domain));
    return domain;
  }

  /** Where devices report. */
  get deviceEvents(): DeviceEvents {
    return {
      log: this.log,
      vnicGone: (vnic, reason) => vnicGone(this, vnic, reason),
      vnicQueueBroken: (vnic, queue, reason) => vnicQueueBroken(this, vnic, queue, reason),
      vnicReattached: (vnic, socket) => vnicReattached(this, vnic, socket),
      deviceChanged: (device) => this.devices.save(device),
      networkChanged: (device) => this.network.changed(device),
      deviceGone: (device, reason, usable) => {
        this.log('warn', 'device gone', { device, reason, usable });
        for (const vnic of [...this.vnics.values()]) {
          if (vnic.device.name === device) vnicGone(this, vnic.id, `${device}: ${reason}`);
        }
        if (!usable) this.devices.forget(device);
      },
    };
  }
}
