/**
 * What the control plane needs of a network device. The software NIC and AF_XDP interfaces implement it; tests
 * have a fake. A device knows nothing of domains and names: it attaches, filters, counts and detaches by VNIC id.
 */
import type { Ipv4, Mac } from '../../base/address.ts';
import type { Coalescing } from '../../device/coalescing.ts';
import type { RateSetting } from '../../device/rate.ts';
import type { Filter } from '../../filter/boxes.ts';
import type { Belongings } from '../repossess.ts';
import type { KernelNetwork } from './kernel-network.ts';

/** How the doorbell of a queue is coalesced; null: of every queue. */
export interface DoorbellSetting extends Coalescing {
  readonly queue: number | null;
}

export interface AttachRequest {
  /** Id of the VNIC: unique for the life of the daemon. */
  readonly vnic: number;
  readonly address: Ipv4;
  /** What it receives. */
  readonly filters: readonly Filter[];
  /** What it sends; null: the mirror of what it receives. */
  readonly transmit: readonly Filter[] | null;
  readonly mode: 'direct' | 'switched';
  readonly queue: number | null;
  /** Queue pairs, each with `frameCount` frames and rings of its own. */
  readonly pairs: number;
  readonly frameCount: number;
  readonly frameSize: number;
  readonly ringSize: number;
  /** In force from the first frame on. What is not there is unlimited, and rings at once. */
  readonly rates: readonly RateSetting[];
  readonly doorbells: readonly DoorbellSetting[];
}

export type Counters = Record<string, string | number | boolean | null | Record<string, number>>;

/** What the next daemon needs to go on with a device or an attachment: plain JSON, and descriptors. */
export interface Saved {
  readonly state: object;
  /** They stay the owner's, and open for as long as it has them. */
  readonly fds: readonly number[];
}

/** What the daemon before this one saved. Whoever gets it owns the descriptors, also when it cannot use them. */
export interface Inherited {
  readonly state: unknown;
  readonly fds: readonly number[];
}

/** A VNIC on its device. */
export interface Attachment {
  readonly driver: 'virtio' | 'af-xdp';
  /** Plain JSON for the driver's queue. */
  readonly grant: Record<string, unknown>;
  readonly mac: Mac;
  readonly mtu: number;
  readonly regionBytes: number;
  /** For the application: the region, and a socket (one a queue pair, where each has its own). The attachment owns them until `handedOver` or `detach`. */
  readonly fds: readonly number[];
  /** What a process may keep, and go on with, beyond `detach`. Default, and null: nothing. */
  readonly belongings?: Belongings | null;
  /** The application has its copies: the attachment closes what it need not keep. */
  handedOver(): void;
  /** Replace what it receives and what it sends, at once. A packet that both old and new take is not lost. */
  setFilters(filters: readonly Filter[], transmit: readonly Filter[] | null): Promise<void>;
  /** Rejects with ARK_UNSUPPORTED where the device cannot limit that; what was set before stays. */
  setRate(setting: RateSetting): Promise<void>;
  /** Rejects with ARK_UNSUPPORTED where the device cannot. */
  setDoorbell(setting: DoorbellSetting): Promise<void>;
  counters(): Promise<Counters>;
  save(): Saved;
  /** Stop serving the VNIC and release everything. Idempotent; does not fail when the device is gone. */
  detach(): Promise<void>;
}

export interface DeviceDescription {
  readonly kind: 'softnic' | 'interface';
  readonly state: string;
  readonly pid: number;
  readonly restarts: number;
  readonly detail: string;
}

export interface NicDevice {
  readonly name: string;
  readonly mac: Mac;
  readonly mtu: number;
  /** The host's own address on this network; 0 when it has none. */
  readonly address: Ipv4;
  readonly prefix: number;
  /** Where VNICs send what is for other networks; 0: nowhere. */
  readonly gateway: Ipv4;
  /** True when a VNIC may share `address` with the kernel, by port filters. */
  readonly sharesAddress: boolean;
  /** True when the device gives out addresses of its network by itself. */
  readonly assignsAddresses: boolean;
  /** What the kernel knows of the network of the address that VNICs share; absent where they share none. */
  readonly kernel?: Pick<KernelNetwork, 'current' | 'resolve'>;
  /** Speed of its link; null when it has none, or does not tell. */
  readonly bitsPerSecond: number | null;
  describe(): DeviceDescription;
  /** Serve a VNIC. Rejects with an ArrakisError and leaves nothing behind. */
  attach(request: AttachRequest): Promise<Attachment>;
  /** Serve a VNIC to whoever connects to the vhost-user socket `path`. Rejects with ARK_UNSUPPORTED where it cannot. */
  listen(request: AttachRequest, path: string): Promise<Attachment>;
  /**
   * Go on with what a daemon before this one attached and saved. Throws an ArrakisError when it is no more; then nothing
   * of it is left.
   */
  adopt(request: AttachRequest, inherited: Inherited): Attachment;
  /** Everything that is to go on was adopted: the device gives up the rest, and makes good what was lost meanwhile. */
  settle(): void;
  save(): Saved;
  /** Let go of the device; attachments are detached before. */
  close(): Promise<void>;
}

export interface DeviceEvents {
  /** One VNIC stopped. */
  vnicGone(vnic: number, reason: string): void;
  /** One queue pair of a VNIC broke its device's protocol and is served no more; the others are. */
  vnicQueueBroken(vnic: number, queue: number, reason: string): void;
  /** The VNIC is served anew, behind another socket: for its application, which is to connect again. */
  vnicReattached(vnic: number, socket: number): void;
  /** What `save` says is not what it was. */
  deviceChanged(device: string): void;
  /** What `kernel` says is not what it was. */
  networkChanged(device: string): void;
  /** The device stopped: all of its VNICs did. `usable` tells whether it can be attached to again. */
  deviceGone(device: string, reason: string, usable: boolean): void;
  log(level: 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void;
}

/** `inherited` is what the daemon before had of it: throws an ArrakisError when it cannot go on with that. */
export type OpenInterface = (
  name: string,
  events: DeviceEvents,
  inherited?: Inherited,
) => NicDevice;
