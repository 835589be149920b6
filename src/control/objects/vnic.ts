/**
 * VNIC: a virtual interface card on a device, with its queue, doorbell, region and filters.
 *
 *   prepared --open--> opening --> open --close or gone--> closing --> prepared, or removed when not prepared
 *
 * - Its filters are claimed from the moment it exists, before the device is asked and until the device has let go,
 *   so two requests in flight cannot be given the same packets.
 * - Whoever waits for the device looks again afterwards whether the VNIC is still wanted: its domain may have ended.
 */
import { formatIpv4 } from '../../base/address.ts';
import { assert } from '../../base/assert.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { RateSetting } from '../../device/rate.ts';
import type { Filter } from '../../filter/boxes.ts';
import { formatFilter } from '../../filter/format.ts';
import { type AddressInterval, IMPLICIT, type VnicAuthority } from '../caps/authority.ts';
import type { Capability } from '../caps/space.ts';
import { endUse, holdsVnic, holdVnic, releaseHold, type VnicHold } from '../caps/vnic-hold.ts';
import { awaitStop } from '../caps/withdraw.ts';
import type { Attachment, AttachRequest, DoorbellSetting, NicDevice } from '../devices/device.ts';
import { LIMITS } from '../limits.ts';
import type { ControlPlane } from '../plane.ts';
import type { ObjectInfo, VnicInfo } from '../protocol.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import { type Addressing, type Claim, planAddress } from './address.ts';
import type { Domain } from './domain.ts';
import { addDoorbell } from './doorbell.ts';
import { enforcementOf } from './enforcement.ts';
import { addFilters } from './filter.ts';
import { addQueue } from './queue.ts';
import { addRates, checkRate, doorbellOf, ratesOfSpec } from './rate.ts';
import { addRegion } from './region.ts';
import type { ControlObject } from './table.ts';
import { keepVnic } from './vnic-keeping.ts';

export type VnicState = 'prepared' | 'opening' | 'open' | 'closing';

const REVOKED = 'revoked';

/** What a domain that is not privileged may have of a device. */
export interface Admission {
  /** Whole addresses to choose from, by ascending first. */
  readonly within: () => readonly AddressInterval[];
  /** Throws ARK_NOT_PERMITTED unless it may have all of these. */
  readonly filters: (filters: readonly Filter[]) => void;
}

/** What decode found out about a VNIC to be. */
export interface VnicPlan {
  readonly name: string;
  readonly device: NicDevice;
  readonly spec: VnicSpec;
  readonly addressing: Addressing;
}

/** Who has a VNIC of another open. */
export interface VnicUser {
  readonly domain: Domain;
  readonly cap: Capability;
  readonly forget: () => void;
}

export class Vnic implements ControlObject {
  readonly kind = 'vnic';
  readonly id: number;
  readonly createdMs: number;
  readonly domain: Domain;
  readonly name: string;
  /** Another object of the same name when the interface went and came back. */
  device: NicDevice;
  readonly spec: VnicSpec;
  readonly addressing: Addressing;
  /** Filters that it was made with: a domain may narrow them and widen them again up to these. */
  readonly granted: readonly Filter[];
  /** May be opened again when it was closed. */
  prepared: boolean;
  /** Its capabilities, while it exists. */
  hold: VnicHold | null = null;
  /** Who has it open by a capability, when that is not its domain. */
  user: VnicUser | null = null;
  /** vhost-user socket of a VNIC for a foreign program, or null. */
  path: string | null = null;
  /** What it receives, with the ids of the filters in the same order. */
  filters: readonly Filter[];
  filterIds: readonly number[] = [];
  /** What it sends; null: the mirror of what it receives. */
  transmit: readonly Filter[] | null = null;
  transmitIds: readonly number[] = [];
  /** Its device is being told of other filters. */
  filtering = false;
  /** What is set, where it is not the default; and what it was given. */
  rates: readonly RateSetting[];
  ceilings: readonly RateSetting[];
  rateIds: number[] = [];
  doorbells: readonly DoorbellSetting[] = [];
  state: VnicState = 'prepared';
  /** While it is being opened: somebody has closed it meanwhile. And when that is over. */
  givenUp = false;
  opening: Promise<unknown> = Promise.resolve();
  attachment: Attachment | null = null;
  /** The process that has it open, or had last; 0: none. */
  holder = 0;
  removed = false;
  opened = 0;
  /** Ids of its queue, doorbell and region while it is open. */
  parts: readonly number[] = [];
  /** Ends when the device has let go, while closing. */
  released: Promise<void> = Promise.resolve();

  constructor(
    birth: { id: number; createdMs: number },
    domain: Domain,
    plan: VnicPlan,
    prepared: boolean,
  ) {
    this.id = birth.id;
    this.createdMs = birth.createdMs;
    this.domain = domain;
    this.name = plan.name;
    this.device = plan.device;
    this.spec = plan.spec;
    this.addressing = plan.addressing;
    this.granted = plan.addressing.filters;
    this.filters = plan.addressing.filters;
    this.rates = ratesOfSpec(plan.spec);
    this.ceilings = this.rates;
    this.prepared = prepared;
  }

  get owner(): number {
    return this.domain.id;
  }

  /** The domain that has it open, or would. */
  get opener(): Domain {
    return this.user?.domain ?? this.domain;
  }

  /** The other end belongs to a program that is not ours. */
  get foreign(): boolean {
    return this.path !== null;
  }

  detail(): ObjectInfo['detail'] {
    const { address, prefix, gateway, ownsAddress } = this.addressing;
    return {
      device: this.device.name,
      state: this.state,
      driver: this.attachment?.driver ?? null,
      mode: this.device.sharesAddress ? (this.spec.mode ?? 'switched') : null,
      mac: this.attachment?.mac ?? null,
      address,
      prefix,
      gateway,
      ownsAddress,
      ...enforcementOf(this.attachment, this.device.sharesAddress, this.spec.mode === 'direct'),
      filters: this.filters.map(formatFilter),
      transmit: this.transmit?.map(formatFilter) ?? null,
      path: this.path,
      opened: this.opened,
    };
  }
}

export const vnicsOf = (plane: ControlPlane, domain: Domain): Vnic[] =>
  [...plane.vnics.values()].filter((vnic) => vnic.domain === domain);

/** What every VNIC receives: nobody else may. */
export const claimsOf = (plane: ControlPlane): Claim[] =>
  [...plane.vnics.values()].map((vnic) => ({
    device: vnic.device.name,
    name: vnic.name,
    ownerText: ownerText(vnic.domain),
    filters: [...vnic.granted, ...vnic.filters],
  }));

const ownerText = (domain: Domain): string =>
  domain.pid === 0 ? domain.name : `${domain.name} (pid ${domain.pid})`;

/** Decode: VNIC `spec` on a device that exists, under a free name, with filters that nobody has. */
export function planVnic(
  plane: ControlPlane,
  spec: VnicSpec,
  domain: Domain | null,
  earlier: readonly VnicPlan[] = [],
  admit: Admission | null = null,
): VnicPlan {
  if (plane.vnics.size + earlier.length >= LIMITS.vnicsMax) {
    throw new ArrakisError('ARK_LIMIT', `the daemon serves at most ${LIMITS.vnicsMax} VNICs`);
  }
  if (domain !== null && vnicsOf(plane, domain).length >= LIMITS.vnicsPerDomainMax) {
    throw new ArrakisError('ARK_LIMIT', `a domain has at most ${LIMITS.vnicsPerDomainMax} VNICs`);
  }
  const device = plane.devices.require(spec.device);
  const claims = claimsOf(plane);
  for (const plan of earlier) {
    const { filters } = plan.addressing;
    claims.push({
      device: plan.device.name,
      name: plan.name,
      ownerText: 'the same request',
      filters,
    });
  }
  const names = new Set(claims.map((claim) => claim.name));
  let name = spec.name;
  for (let n = 0; name === undefined; n++) if (!names.has(`vnic${n}`)) name = `vnic${n}`;
  if (names.has(name)) {
    throw new ArrakisError('ARK_IN_USE', `there is a VNIC "${name}" already`, {
      hint: 'choose another name=, or none',
    });
  }
  if (spec.queue !== undefined && spec.mode !== 'direct') {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'queue= belongs to mode=direct', {
      hint: 'a switched VNIC has a queue of its own',
    });
  }
  const frames = (spec.frames ?? LIMITS.framesDefault) * (spec.queues ?? 1);
  if (frames > LIMITS.framesPerVnicMax) {
    throw new ArrakisError('ARK_LIMIT', `${frames} packet buffers in all queue pairs`, {
      hint: `frames= counts for each pair; all together have at most ${LIMITS.framesPerVnicMax}`,
    });
  }
  if (spec.mode !== undefined && !device.sharesAddress) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${device.name} has no modes`, {
      hint: 'mode= is for interfaces (AF_XDP)',
    });
  }
  for (const rate of ratesOfSpec(spec)) checkRate(device, spec, rate);
  const addressing = planAddress(spec, device, claims, admit);
  if (!addressing.ownsAddress) plane.network.requireFree(device, addressing.filters);
  return { name, device, spec, addressing };
}

/**
 * The VNIC `id` when `domain` has it, is privileged, or has a capability with `right` for it; who uses it by a capability
 * may close it and set its doorbells in any case. Throws ARK_NOT_FOUND otherwise, whether or not it exists;
 * ARK_NOT_PERMITTED when its capability lacks the right.
 */
export function findVnic(
  plane: ControlPlane,
  domain: Domain,
  id: number,
  right: 'filter' | 'rate' | 'doorbell' | 'capture' | 'close',
): Vnic {
  const vnic = plane.vnics.get(id);
  const isUsers = right === 'close' || right === 'doorbell';
  const may = (one: Vnic): boolean =>
    domain.privileged ||
    one.domain === domain ||
    (isUsers && one.user?.domain === domain) ||
    holdsVnic(plane, domain, one, right === 'doorbell' ? 'rate' : right);
  if (vnic === undefined || !may(vnic)) {
    throw new ArrakisError('ARK_NOT_FOUND', `there is no VNIC ${id} here`, {
      hint: '`arrakis ls` lists them',
    });
  }
  return vnic;
}

/** Invoke: the VNIC exists and its filters are claimed; no device knows of it yet. */
export function reserveVnic(
  plane: ControlPlane,
  domain: Domain,
  plan: VnicPlan,
  options: { prepared: boolean; authority?: VnicAuthority },
): Vnic {
  const vnic = new Vnic(plane.objects.birth(), domain, plan, options.prepared);
  holdVnic(plane, vnic, options.authority ?? IMPLICIT, () => vnicRevoked(plane, vnic));
  plane.objects.add(vnic);
  plane.vnics.set(vnic.id, vnic);
  plane.devices.hold(vnic.device);
  vnic.filterIds = addFilters(plane.objects, vnic, 'receive', vnic.filters);
  vnic.rateIds = addRates(plane.objects, vnic);
  void plane.network.occupy(vnic);
  keepVnic(plane, vnic);
  return vnic;
}

/** Decode: the device that serves a prepared VNIC now. It may have gone and come back since it was prepared. */
export function currentDevice(plane: ControlPlane, vnic: Vnic): NicDevice {
  const device = plane.devices.require(vnic.spec.device);
  if (!vnic.addressing.ownsAddress && device.address !== vnic.addressing.address) {
    throw new ArrakisError(
      'ARK_GONE',
      `${device.name} no longer has ${formatIpv4(vnic.addressing.address)}`,
      { hint: 'start the application again' },
    );
  }
  return device;
}

/** Invoke: the VNIC is on `device` from now on. */
export function moveVnic(plane: ControlPlane, vnic: Vnic, device: NicDevice): void {
  if (vnic.device === device) return;
  plane.devices.hold(device);
  const before = vnic.device;
  vnic.device = device;
  plane.devices.release(before);
}

/** What a device is asked for to serve the VNIC. */
export function requestOf(vnic: Vnic): AttachRequest {
  const frameCount = vnic.spec.frames ?? LIMITS.framesDefault;
  return {
    vnic: vnic.id,
    address: vnic.addressing.address,
    filters: vnic.filters,
    transmit: vnic.transmit,
    mode: vnic.spec.mode ?? 'switched',
    queue: vnic.spec.queue ?? null,
    pairs: vnic.spec.queues ?? 1,
    frameCount,
    frameSize: LIMITS.frameSizeDefault,
    // Frames in both rings, and as many again for the application to hold.
    ringSize: Math.min(LIMITS.ringSizeMax, frameCount / 4),
    rates: vnic.rates,
    doorbells: vnic.doorbells,
  };
}

/** Invoke: have the device serve the VNIC, to us or, with `path`, to a foreign program. ARK_GONE when it was closed. */
export function attachVnic(
  plane: ControlPlane,
  vnic: Vnic,
  path: string | null,
): Promise<Attachment> {
  assert(vnic.state === 'prepared', 'a VNIC is attached once');
  vnic.state = 'opening';
  vnic.givenUp = false;
  vnic.path = path;
  const opening = attach(plane, vnic, path);
  vnic.opening = opening.catch(() => {});
  return opening;
}

async function attach(plane: ControlPlane, vnic: Vnic, path: string | null): Promise<Attachment> {
  const request = requestOf(vnic);
  let attachment: Attachment;
  try {
    attachment = await (path === null
      ? vnic.device.attach(request)
      : vnic.device.listen(request, path));
  } catch (error) {
    vnic.state = 'prepared';
    throw error;
  }
  if (vnic.removed || vnic.givenUp) {
    await attachment.detach();
    vnic.state = 'prepared';
    keepVnic(plane, vnic);
    throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} was closed while it was opened`);
  }
  vnic.opened++;
  if (attachment.belongings) plane.repossessions.regained(attachment.belongings);
  attached(plane, vnic, request, attachment);
  keepVnic(plane, vnic);
  return attachment;
}

/** Invoke: the device serves the VNIC. */
export function attached(
  plane: ControlPlane,
  vnic: Vnic,
  request: AttachRequest,
  attachment: Attachment,
): void {
  const { id, owner } = vnic;
  const { driver, regionBytes } = attachment;
  vnic.parts = [
    ...Array.from({ length: request.pairs }, (_, pair) => [
      addQueue(plane.objects, owner, id, { pair, ringSize: request.ringSize, driver }),
      addDoorbell(plane.objects, owner, id, pair, driver, () => doorbellOf(vnic, pair)),
    ]).flat(),
    addRegion(plane.objects, owner, id, {
      bytes: regionBytes,
      frames: request.frameCount * request.pairs,
    }),
  ];
  vnic.attachment = attachment;
  vnic.holder = vnic.opener.pid;
  vnic.state = 'open';
}

/** The device lets go of the VNIC; resolves when it has. The VNIC may then be opened again. */
export function detachVnic(plane: ControlPlane, vnic: Vnic): Promise<void> {
  const { attachment } = vnic;
  if (attachment === null) return vnic.released;
  vnic.attachment = null;
  vnic.state = 'closing';
  plane.captures.endOn(vnic);
  plane.network.unfollow(vnic);
  endUse(vnic);
  for (const id of vnic.parts) plane.objects.remove(id);
  vnic.parts = [];
  const { belongings } = attachment;
  const repossess = belongings ? plane.repossessions.note(belongings, vnic.holder) : null;
  // Before the device lets go: what is half gone is not to be taken over.
  keepVnic(plane, vnic);
  vnic.released = attachment
    .detach()
    .finally(repossess)
    .catch((error: Error) =>
      plane.log('error', 'detach failed', { vnic: vnic.id, error: error.message }),
    )
    .then(() => {
      vnic.state = 'prepared';
    });
  return vnic.released;
}

/** Close the VNIC, which may be opened again: an open that is under way fails. Resolves when the device has let go. */
export async function closeVnic(plane: ControlPlane, vnic: Vnic): Promise<void> {
  if (vnic.state === 'opening') {
    vnic.givenUp = true;
    await vnic.opening;
  } else await detachVnic(plane, vnic);
}

/** Take the VNIC away for good; resolves when its filters are free again. Idempotent. */
export async function removeVnic(plane: ControlPlane, vnic: Vnic, reason: string): Promise<void> {
  const first = !vnic.removed;
  vnic.removed = true;
  if (vnic.user !== null) tellGone(vnic, reason);
  endUse(vnic);
  releaseHold(plane, vnic, vnic.owner);
  await detachVnic(plane, vnic);
  if (!first) return;
  plane.keeping.delete('vnic', vnic.id);
  const ports = plane.network.release(vnic);
  const { filterIds, transmitIds, rateIds } = vnic;
  for (const id of [...filterIds, ...transmitIds, ...rateIds]) plane.objects.remove(id);
  plane.objects.remove(vnic.id);
  plane.vnics.delete(vnic.id);
  plane.devices.release(vnic.device);
  await ports;
  plane.log('info', 'vnic removed', { vnic: vnic.id, name: vnic.name, reason });
}

/** The device stopped serving the VNIC: tell the domain; it may reopen a prepared one. */
export function vnicGone(plane: ControlPlane, id: number, reason: string): void {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined || vnic.attachment === null) return;
  plane.counters.vnicsGone++;
  plane.log('warn', 'vnic gone', { vnic: id, name: vnic.name, reason });
  tellGone(vnic, reason);
  if (vnic.prepared) void detachVnic(plane, vnic);
  else void removeVnic(plane, vnic, reason);
}

const tellGone = (vnic: Vnic, reason: string): void =>
  vnic.opener.event('vnic.gone', { vnic: vnic.id, reason });

/** A capability that the VNIC exists by is gone: so is the VNIC. */
export function vnicRevoked(plane: ControlPlane, vnic: Vnic): void {
  if (vnic.removed) return;
  const { hold } = vnic;
  const needs = hold === null ? [] : [hold.root, ...hold.needs];
  tellGone(vnic, REVOKED);
  endUse(vnic);
  releaseHold(plane, vnic, null);
  awaitStop(plane, needs, removeVnic(plane, vnic, REVOKED));
}

/** The capability by which another domain has the VNIC open is gone: it is closed, and stays for its owner. */
export function useRevoked(plane: ControlPlane, vnic: Vnic): void {
  const { user } = vnic;
  if (vnic.attachment === null || user === null) return;
  tellGone(vnic, REVOKED);
  awaitStop(plane, [user.cap], detachVnic(plane, vnic));
}

/** A queue pair of the VNIC is served no more: tell the domain. The others go on. */
export function vnicQueueBroken(
  plane: ControlPlane,
  id: number,
  queue: number,
  reason: string,
): void {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined || vnic.attachment === null) return;
  plane.log('warn', 'queue broken', { vnic: id, name: vnic.name, queue, reason });
  vnic.opener.event('vnic.queue-broken', { vnic: id, queue, reason });
}

/** The device serves the VNIC anew: its application gets the socket and goes on. */
export function vnicReattached(plane: ControlPlane, id: number, socket: number): void {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined || vnic.attachment === null) return;
  plane.log('info', 'vnic reattached', { vnic: id, name: vnic.name });
  vnic.opener.event('vnic.reattach', { vnic: id }, [socket]);
}

/** What the domain is told of a VNIC that it opened. */
export function vnicReply(vnic: Vnic, attachment: Attachment): VnicInfo {
  const { address, prefix, gateway, ownsAddress } = vnic.addressing;
  assert(attachment.fds.length >= 2, `a VNIC has region and socket (${formatIpv4(address)})`);
  const { driver, grant, mac, mtu } = attachment;
  const { id, name, device } = vnic;
  const filters = vnic.filters.map(formatFilter);
  const transmit = vnic.transmit?.map(formatFilter) ?? null;
  const place = { address, prefix, gateway, ownsAddress, filters, transmit };
  return { vnic: id, name, device: device.name, driver, grant, mac, mtu, ...place };
}
