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
import { type FlowFilter, formatFilter } from '../../device/filter.ts';
import type { Attachment, AttachRequest, NicDevice } from '../devices/device.ts';
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
import { addRegion } from './region.ts';
import type { ControlObject } from './table.ts';

export type VnicState = 'prepared' | 'opening' | 'open' | 'closing';

/** What decode found out about a VNIC to be. */
export interface VnicPlan {
  readonly name: string;
  readonly device: NicDevice;
  readonly spec: VnicSpec;
  readonly addressing: Addressing;
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
  readonly granted: readonly FlowFilter[];
  readonly prepared: boolean;
  /** vhost-user socket of a VNIC for a foreign program, or null. */
  path: string | null = null;
  filters: readonly FlowFilter[];
  filterIds: number[] = [];
  state: VnicState = 'prepared';
  attachment: Attachment | null = null;
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
    this.prepared = prepared;
  }

  get owner(): number {
    return this.domain.id;
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
  if (spec.mode !== undefined && !device.sharesAddress) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${device.name} has no modes`, {
      hint: 'mode= is for interfaces (AF_XDP)',
    });
  }
  return { name, device, spec, addressing: planAddress(spec, device, claims) };
}

/** The VNIC `id` when `domain` may see it; throws ARK_NOT_FOUND otherwise, whether or not it exists. */
export function findVnic(plane: ControlPlane, domain: Domain, id: number): Vnic {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined || (!domain.privileged && vnic.domain !== domain)) {
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
  options: { prepared: boolean },
): Vnic {
  const vnic = new Vnic(plane.objects.birth(), domain, plan, options.prepared);
  plane.objects.add(vnic);
  plane.vnics.set(vnic.id, vnic);
  plane.devices.hold(vnic.device);
  vnic.filterIds = addFilters(plane.objects, vnic.owner, vnic.id, vnic.filters);
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

/** Invoke: have the device serve the VNIC, to us or, with `path`, to a foreign program. */
export async function attachVnic(
  plane: ControlPlane,
  vnic: Vnic,
  path: string | null,
): Promise<Attachment> {
  assert(vnic.state === 'prepared', 'a VNIC is attached once');
  vnic.state = 'opening';
  vnic.path = path;
  const frameCount = vnic.spec.frames ?? LIMITS.framesDefault;
  const request: AttachRequest = {
    vnic: vnic.id,
    address: vnic.addressing.address,
    filters: vnic.filters,
    mode: vnic.spec.mode ?? 'switched',
    queue: vnic.spec.queue ?? null,
    frameCount,
    frameSize: LIMITS.frameSizeDefault,
    // Frames in both rings, and as many again for the application to hold.
    ringSize: Math.min(LIMITS.ringSizeDefault, frameCount / 4),
  };
  let attachment: Attachment;
  try {
    attachment = await (path === null
      ? vnic.device.attach(request)
      : vnic.device.listen(request, path));
  } catch (error) {
    vnic.state = 'prepared';
    throw error;
  }
  if (vnic.removed) {
    await attachment.detach();
    throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} was closed while it was opened`);
  }
  const { id, owner } = vnic;
  const { driver, regionBytes } = attachment;
  vnic.parts = [
    addQueue(plane.objects, owner, id, { ringSize: request.ringSize, driver }),
    addDoorbell(plane.objects, owner, id, driver),
    addRegion(plane.objects, owner, id, { bytes: regionBytes, frames: request.frameCount }),
  ];
  vnic.attachment = attachment;
  vnic.state = 'open';
  vnic.opened++;
  return attachment;
}

/** The device lets go of the VNIC; resolves when it has. The VNIC may then be opened again. */
export function detachVnic(plane: ControlPlane, vnic: Vnic): Promise<void> {
  const { attachment } = vnic;
  if (attachment === null) return vnic.released;
  vnic.attachment = null;
  vnic.state = 'closing';
  plane.captures.endOn(vnic);
  for (const id of vnic.parts) plane.objects.remove(id);
  vnic.parts = [];
  vnic.released = attachment
    .detach()
    .catch((error: Error) =>
      plane.log('error', 'detach failed', { vnic: vnic.id, error: error.message }),
    )
    .then(() => {
      vnic.state = 'prepared';
    });
  return vnic.released;
}

/** Take the VNIC away for good; resolves when its filters are free again. Idempotent. */
export async function removeVnic(plane: ControlPlane, vnic: Vnic, reason: string): Promise<void> {
  const first = !vnic.removed;
  vnic.removed = true;
  await detachVnic(plane, vnic);
  if (!first) return;
  for (const id of vnic.filterIds) plane.objects.remove(id);
  plane.objects.remove(vnic.id);
  plane.vnics.delete(vnic.id);
  plane.devices.release(vnic.device);
  plane.log('info', 'vnic removed', { vnic: vnic.id, name: vnic.name, reason });
}

/** The device stopped serving the VNIC: tell the domain; it may reopen a prepared one. */
export function vnicGone(plane: ControlPlane, id: number, reason: string): void {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined || vnic.attachment === null) return;
  plane.log('warn', 'vnic gone', { vnic: id, name: vnic.name, reason });
  vnic.domain.event('vnic.gone', { vnic: id, reason });
  if (vnic.prepared) void detachVnic(plane, vnic);
  else void removeVnic(plane, vnic, reason);
}

/** What the domain is told of a VNIC that it opened. */
export function vnicReply(vnic: Vnic, attachment: Attachment): VnicInfo {
  const { address, prefix, gateway, ownsAddress } = vnic.addressing;
  assert(attachment.fds.length === 2, `a VNIC has region and socket (${formatIpv4(address)})`);
  const { driver, grant, mac, mtu } = attachment;
  const { id, name, device, filters } = vnic;
  const place = { address, prefix, gateway, ownsAddress, filters: [...filters] };
  return { vnic: id, name, device: device.name, driver, grant, mac, mtu, ...place };
}
