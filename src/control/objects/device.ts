/** Devices by name: the software NIC, interfaces that were added, and those taken because a VNIC spec named them. */
import { ArrakisError } from '../../base/errors.ts';
import type { DeviceEvents, Inherited, NicDevice, OpenInterface } from '../devices/device.ts';
import { handler } from '../handler.ts';
import type { Keeping } from '../keeping.ts';
import type { Log } from '../log.ts';
import type { ControlPlane } from '../plane.ts';
import type { DeviceInfo } from '../protocol.ts';

interface Entry {
  readonly device: NicDevice;
  /** VNICs on it. */
  holders: number;
  /** Stays without VNICs; the others are let go with their last one. */
  readonly keep: boolean;
}

export class DeviceTable {
  readonly #entries = new Map<string, Entry>();
  readonly #open: OpenInterface;
  readonly #events: DeviceEvents;
  readonly #log: Log;
  readonly #keeping: Keeping;

  constructor(open: OpenInterface, events: DeviceEvents, log: Log, keeping: Keeping) {
    this.#open = open;
    this.#events = events;
    this.#log = log;
    this.#keeping = keeping;
  }

  add(device: NicDevice, keep = true): NicDevice {
    this.#entries.set(device.name, { device, holders: 0, keep });
    this.save(device.name);
    return device;
  }

  /** Note for the next daemon what the device is. */
  save(name: string): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    const { state, fds } = entry.device.save();
    this.#keeping.put('device', name, { keep: entry.keep, ...state }, fds);
  }

  /** Open the interface that the daemon before had. Throws as `require`, also when it is another one by now. */
  adopt(name: string, keep: boolean, inherited: Inherited): NicDevice {
    return this.add(this.#open(name, this.#events, inherited), keep);
  }

  /** What was not adopted by now is given up. */
  settle(): void {
    for (const { device } of this.#entries.values()) device.settle();
    this.sweep();
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * The device `name`; an interface is opened when it is not yet. One that was opened for a request that then
   * fails is let go by `sweep`. Throws ARK_NOT_FOUND, ARK_IN_USE, ARK_UNSUPPORTED, ARK_NOT_PERMITTED.
   */
  require(name: string, keep = false): NicDevice {
    const entry = this.#entries.get(name);
    if (entry !== undefined) return entry.device;
    const device = this.add(this.#open(name, this.#events), keep);
    this.#log('info', 'device opened', { device: name, detail: device.describe().detail });
    return device;
  }

  hold(device: NicDevice): void {
    const entry = this.#entries.get(device.name);
    if (entry?.device === device) entry.holders++;
  }

  release(device: NicDevice): void {
    const entry = this.#entries.get(device.name);
    if (entry?.device === device) entry.holders--;
    this.sweep();
  }

  /** Let go of interfaces that nobody needs. */
  sweep(): void {
    for (const [name, { device, holders, keep }] of this.#entries) {
      if (!keep && holders === 0) void this.#drop(name, device);
    }
  }

  /** The interface is no more: an equally named one that comes later is another device. */
  forget(name: string): void {
    const entry = this.#entries.get(name);
    if (entry !== undefined) void this.#drop(name, entry.device);
  }

  list(): DeviceInfo[] {
    return [...this.#entries.values()].map(({ device, holders }) => describe(device, holders));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#entries].map(([name, { device }]) => this.#drop(name, device)));
  }

  /** A device that does not let go in order is logged: nothing else waits for it in vain, the daemon's end neither. */
  async #drop(name: string, device: NicDevice): Promise<void> {
    this.#entries.delete(name);
    this.#keeping.delete('device', name);
    try {
      await device.close();
      this.#log('info', 'device closed', { device: name });
    } catch (error) {
      this.#log('error', 'device close failed', {
        device: name,
        error: (error as Error).message,
      });
    }
  }
}

function describe(device: NicDevice, vnics: number): DeviceInfo {
  const { name, mac, mtu, address, prefix } = device;
  return { name, mac, mtu, address, prefix, vnics, ...device.describe() };
}

export const list = handler(
  'device.list',
  () => null,
  (plane: ControlPlane) => ({ reply: { devices: plane.devices.list() } }),
);

export const add = handler(
  'device.add',
  (plane, _call, { name }) => {
    if (plane.devices.has(name)) {
      throw new ArrakisError('ARK_IN_USE', `${name} is a device already`, {
        hint: '`device.list` shows it',
      });
    }
    return { name };
  },
  (plane, { name }) => {
    const device = plane.devices.require(name, true);
    return { reply: { device: describe(device, 0) } };
  },
);
