/**
 * VNICs that share an address with the host's kernel: what their domains are told of the kernel's network, and the kernel
 * ports that are occupied for them (devices/kernel-sockets.ts).
 */
import { formatIpv4, type Ipv4, netmask } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeAll } from '../../ffi/fd.ts';
import type { Filter } from '../../filter/boxes.ts';
import type { HostNetwork } from '../devices/kernel-network.ts';
import { occupyPorts, type Port, portsOf } from '../devices/kernel-sockets.ts';
import { callerOf, handler } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import { Mailbox } from '../mailbox.ts';
import type { ControlPlane } from '../plane.ts';
import type { ArgsOf } from '../protocol.ts';
import type { Domain } from './domain.ts';
import { findVnic, type Vnic } from './vnic.ts';

/** How often it is looked whether a port is free. */
const FREE_POLL_MS = 2;

/** What one VNIC has of the kernel. */
interface Share {
  /** Its domain has asked to be told. */
  follows: boolean;
  /** Neighbours that it may still have resolved, and when that was counted. */
  tokens: number;
  countedMs: number;
  ports: readonly Port[];
  fds: readonly number[];
}

export class NetworkTable {
  readonly #plane: ControlPlane;
  readonly #shares = new Map<number, Share>();
  readonly #mail = new WeakMap<Domain, Mailbox>();

  constructor(plane: ControlPlane) {
    this.#plane = plane;
  }

  shareOf(vnic: Vnic): Share {
    const share = this.#shares.get(vnic.id) ?? newShare();
    this.#shares.set(vnic.id, share);
    return share;
  }

  /** The kernel knows something else of the network of `device`: tell the domains that follow it. */
  changed(device: string): void {
    for (const vnic of this.#plane.vnics.values()) {
      if (vnic.device.name !== device || this.#shares.get(vnic.id)?.follows !== true) continue;
      const { opener: domain } = vnic;
      const mail = this.#mail.get(domain) ?? new Mailbox(domain);
      this.#mail.set(domain, mail);
      mail.post(`network ${vnic.id}`, () => {
        const network = vnic.state === 'open' ? vnic.device.kernel?.current : undefined;
        if (network !== undefined) domain.event('network.changed', eventOf(vnic.id, network));
      });
    }
  }

  /** Decode: throws ARK_IN_USE when a kernel socket has a port that these filters take, beyond what the VNIC has already. */
  requireFree(device: Vnic['device'], filters: readonly Filter[], vnic: Vnic | null = null): void {
    const held = vnic === null ? [] : this.shareOf(vnic).ports;
    const ports = portsFor(device, filters).filter((port) => !isAmong(held, port));
    closeAll(occupyPorts(device.address, ports));
  }

  /**
   * Invoke: the VNIC occupies the ports of its filters, and no others. What somebody has taken meanwhile is said in the log.
   * Resolves when the kernel may have the ports that it no longer occupies.
   */
  async occupy(vnic: Vnic): Promise<void> {
    const before = this.shareOf(vnic).ports;
    this.#change(vnic);
    const { ports } = this.shareOf(vnic);
    await this.#untilFree(
      vnic,
      before.filter((port) => !isAmong(ports, port)),
    );
  }

  #change(vnic: Vnic): void {
    const share = this.shareOf(vnic);
    const wanted = vnic.addressing.ownsAddress ? [] : portsFor(vnic.device, vnic.filters);
    const kept = share.ports.map((port, i) => ({ port, fd: share.fds[i]! }));
    const stays = kept.filter(({ port }) => isAmong(wanted, port));
    closeAll(kept.filter((one) => !stays.includes(one)).map(({ fd }) => fd));
    for (const port of wanted) {
      if (stays.some((one) => isSame(one.port, port))) continue;
      try {
        stays.push({ port, fd: occupyPorts(vnic.device.address, [port])[0]! });
      } catch (error) {
        if (!(error instanceof ArrakisError)) throw error;
        this.#plane.log('warn', 'port not reserved', { vnic: vnic.id, error: error.message });
      }
    }
    share.ports = stays.map(({ port }) => port);
    share.fds = stays.map(({ fd }) => fd);
    this.#keep(vnic, share);
  }

  /** The daemon before had these descriptors for it. Owns them. */
  adopt(vnic: Vnic, ports: readonly Port[], fds: readonly number[]): void {
    const share = this.shareOf(vnic);
    closeAll(fds.slice(ports.length));
    share.ports = ports.slice(0, fds.length);
    share.fds = fds.slice(0, ports.length);
    this.#change(vnic);
  }

  /** The VNIC is not open any more: it is told nothing. Its ports stay its own. */
  unfollow(vnic: Vnic): void {
    const share = this.#shares.get(vnic.id);
    if (share !== undefined) share.follows = false;
  }

  /** The VNIC is no more: resolves when the kernel may have its ports. */
  async release(vnic: Vnic): Promise<void> {
    const share = this.#shares.get(vnic.id);
    if (share === undefined) return;
    this.#shares.delete(vnic.id);
    this.#plane.keeping.delete('ports', vnic.id);
    closeAll(share.fds);
    await this.#untilFree(vnic, share.ports);
  }

  /** The keeper lets go of its copies of what we closed in its own time. */
  async #untilFree(vnic: Vnic, ports: readonly Port[]): Promise<void> {
    for (let waitedMs = 0; waitedMs < LIMITS.keeperAnswerMsMax; waitedMs += FREE_POLL_MS) {
      try {
        closeAll(occupyPorts(vnic.device.address, ports));
        return;
      } catch (error) {
        if (!(error instanceof ArrakisError)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, FREE_POLL_MS));
    }
  }

  #keep(vnic: Vnic, { ports, fds }: Share): void {
    if (ports.length === 0) this.#plane.keeping.delete('ports', vnic.id);
    else this.#plane.keeping.put('ports', vnic.id, { ports }, fds);
  }
}

function newShare(): Share {
  const tokens = LIMITS.resolvesPerSecond;
  return { follows: false, tokens, countedMs: 0, ports: [], fds: [] };
}

/** None where the kernel has no part in the address, and none of so many that they would cost too much. */
function portsFor(device: Vnic['device'], filters: readonly Filter[]): Port[] {
  if (device.kernel === undefined || device.address === 0) return [];
  return portsOf(filters, device.address, LIMITS.reservedPortsPerVnicMax) ?? [];
}

const isSame = (a: Port, b: Port): boolean => a.protocol === b.protocol && a.port === b.port;
const isAmong = (ports: readonly Port[], port: Port): boolean =>
  ports.some((other) => isSame(other, port));

const eventOf = (vnic: number, network: HostNetwork) => ({ vnic, ...copyOf(network) });

function copyOf({ mtu, addresses, routes, neighbours }: HostNetwork) {
  return {
    mtu,
    addresses: [...addresses],
    routes: [...routes],
    neighbours: [...neighbours],
  };
}

/** The open VNIC of the caller that shares its address. ARK_NOT_FOUND, ARK_GONE, ARK_UNSUPPORTED. */
function findShared(
  plane: ControlPlane,
  domain: Domain,
  { vnic: id }: ArgsOf<'network.read'>,
): { vnic: Vnic; kernel: NonNullable<Vnic['device']['kernel']> } {
  const vnic = findVnic(plane, domain, id, 'doorbell');
  if (vnic.state !== 'open') {
    throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} is not open`, { hint: 'open it first' });
  }
  const { kernel } = vnic.device;
  if (kernel !== undefined && !vnic.addressing.ownsAddress) return { vnic, kernel };
  throw new ArrakisError('ARK_UNSUPPORTED', `VNIC ${vnic.name} shares no address with the kernel`, {
    hint: 'one with an address of its own asks for its neighbours itself',
  });
}

export const read = handler(
  'network.read',
  (plane, call, args) => findShared(plane, callerOf(call), args),
  (plane, { vnic, kernel }) => {
    plane.network.shareOf(vnic).follows = true;
    return { reply: copyOf(kernel.current) };
  },
);

export const resolve = handler(
  'network.resolve',
  (plane, call, args) => {
    const { vnic, kernel } = findShared(plane, callerOf(call), args);
    requireNear(kernel.current, args.address);
    spend(plane.network.shareOf(vnic), plane.clock());
    return { kernel, address: args.address };
  },
  (_plane, { kernel, address }) => {
    kernel.resolve(address);
    return { reply: {} };
  },
);

/** A domain has the kernel ask for neighbours of the link, not send ARP for anything. */
function requireNear({ addresses, routes }: HostNetwork, wanted: Ipv4): void {
  const isIn = (address: Ipv4, prefix: number): boolean =>
    ((address ^ wanted) & netmask(prefix)) === 0;
  const isOwn = addresses.some(({ address }) => address === wanted);
  const isNear =
    addresses.some(({ address, prefix }) => prefix < 32 && isIn(address, prefix)) ||
    routes.some(
      ({ dst, prefix, gateway }) => gateway === wanted || (gateway === 0 && isIn(dst, prefix)),
    );
  if (isNear && !isOwn) return;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${formatIpv4(wanted)} is no neighbour`, {
    hint: 'a neighbour is on the link of the interface',
  });
}

function spend(share: Share, nowMs: number): void {
  const fresh = (Math.max(0, nowMs - share.countedMs) / 1000) * LIMITS.resolvesPerSecond;
  share.tokens = Math.min(LIMITS.resolvesPerSecond, share.tokens + fresh);
  share.countedMs = nowMs;
  if (share.tokens < 1) {
    throw new ArrakisError('ARK_LIMIT', 'too many neighbours were asked for', {
      hint: 'ask again',
    });
  }
  share.tokens--;
}
