/**
 * Rate: what a VNIC, or one of its queues, may send or receive. It is an object while it says more than the default.
 *
 * - `rates` of a VNIC is what is set now, `ceilings` what it was given: by its spec, its domain's capabilities, or a
 *   privileged caller since.
 * - Who enforces it is told: the software NIC delays or drops and divides by weight, XDP programs drop.
 */
import { ArrakisError } from '../../base/errors.ts';
import {
  BITS_PER_SECOND_MAX,
  BITS_PER_SECOND_MIN,
  formatLimits,
  formatRate,
  isDefault,
  isLimited,
  isSameTarget,
  isWithin,
  PACKETS_PER_SECOND_MAX,
  type Rate,
  type RateLimit,
  type RateSetting,
  UNLIMITED,
  WEIGHT_MAX,
} from '../../device/rate.ts';
import { requireRate } from '../caps/authority.ts';
import type { Capability } from '../caps/space.ts';
import { needVnic } from '../caps/vnic-hold.ts';
import type { DoorbellSetting, NicDevice } from '../devices/device.ts';
import { callerOf, handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import type { Domain } from './domain.ts';
import type { ObjectTable } from './table.ts';
import { findVnic, type Vnic, vnicRevoked } from './vnic.ts';
import { keepVnic } from './vnic-keeping.ts';

/** Of a capability, which knows no bounds but its own. */
const within = (value: number | null | undefined, min: number, max: number): number | null =>
  value === null || value === undefined ? null : Math.min(Math.max(value, min), max);

/** What devices can be told of `rate`. */
const deviceRate = (rate: { [K in keyof Rate]?: number | null | undefined }): Rate => ({
  bitsPerSecond: within(rate.bitsPerSecond, BITS_PER_SECOND_MIN, BITS_PER_SECOND_MAX),
  packetsPerSecond: within(rate.packetsPerSecond, 1, PACKETS_PER_SECOND_MAX),
  weight: within(rate.weight, 1, WEIGHT_MAX) ?? 1,
});

/** A capability may go beyond what a link has, which then is the limit. */
export const withinLink = <R extends RateLimit>(device: NicDevice, rate: R): R => {
  const { bitsPerSecond } = rate;
  const most = device.bitsPerSecond;
  const isMore = bitsPerSecond !== null && most !== null && bitsPerSecond > most;
  return isMore ? { ...rate, bitsPerSecond: null } : rate;
};

/** What `spec` gives a VNIC: the same limit in both directions, and a weight for sending. */
export function ratesOfSpec(spec: VnicSpec): RateSetting[] {
  const rate = deviceRate(spec);
  const settings: RateSetting[] = [
    { queue: null, direction: 'send', ...rate },
    { queue: null, direction: 'receive', ...rate, weight: 1 },
  ];
  return settings.filter((setting) => !isDefault(setting));
}

/** Decode: whether VNIC `spec` on `device` can have `setting`. ARK_BAD_ARGUMENT, ARK_UNSUPPORTED. */
export function checkRate(device: NicDevice, spec: VnicSpec, setting: RateSetting): void {
  const { queue, direction, bitsPerSecond, weight } = setting;
  const queues = spec.queues ?? 1;
  if (queue !== null && queue >= queues) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `there is no queue ${queue}`, {
      hint: `this VNIC has ${queues}, counted from 0`,
    });
  }
  if (direction === 'receive' && weight !== 1) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'a weight divides what is sent', {
      hint: 'set it with direction send',
    });
  }
  const most = device.bitsPerSecond;
  if (bitsPerSecond !== null && most !== null && bitsPerSecond > most) {
    const asked = `${formatRate(bitsPerSecond)} bit/s`;
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${device.name} has no ${asked}`, {
      hint: `its link has ${formatRate(most)} bit/s; set less, or null for no limit`,
    });
  }
  if (!device.sharesAddress) return;
  if (spec.mode === 'direct' && direction === 'send' && isLimited(setting)) {
    throw new ArrakisError('ARK_UNSUPPORTED', 'nothing stands behind what a direct VNIC sends', {
      hint: 'use mode=switched; what a direct VNIC receives can be limited: rate.set',
    });
  }
}

/** Who sees to `setting`, for people. */
function enforcerOf(device: NicDevice, setting: Rate): string {
  if (!device.sharesAddress) return 'software NIC';
  if (setting.weight === 1) return 'XDP program';
  return isLimited(setting) ? 'XDP program; its weight: NOTHING' : 'NOTHING';
}

/** Registers what is set for `vnic`; the ids. */
export function addRates(table: ObjectTable, vnic: Vnic): number[] {
  const { id, owner, device } = vnic;
  return vnic.rates.map((setting) => {
    const { queue, direction } = setting;
    const of = queue === null ? `vnic ${id}` : `vnic ${id} queue ${queue}`;
    const detail = { vnic: id, ...setting, enforcedBy: enforcerOf(device, setting) };
    return table.add({
      kind: 'rate',
      ...table.birth(),
      owner,
      name: `${of} ${direction}`,
      detail: () => detail,
    }).id;
  });
}

const targetOf = (all: readonly RateSetting[], target: RateSetting): RateSetting | undefined =>
  all.find((setting) => isSameTarget(setting, target));

const replaced = (all: readonly RateSetting[], setting: RateSetting): RateSetting[] => [
  ...all.filter((other) => !isSameTarget(other, setting)),
  ...(isDefault(setting) ? [] : [setting]),
];

/** What a domain that is not privileged may set without a capability. A queue of its own may have any weight. */
function ceilingOf(vnic: Vnic, setting: RateSetting): Rate {
  const unset = setting.queue === null ? UNLIMITED : { ...UNLIMITED, weight: WEIGHT_MAX };
  return targetOf(vnic.ceilings, setting) ?? unset;
}

/** Decode: what `domain` gets when it asks for `asked`, and the capabilities that the VNIC then needs. */
function authorizeRate(
  plane: ControlPlane,
  domain: Domain,
  vnic: Vnic,
  asked: RateSetting,
): { setting: RateSetting; needs: Capability[] } {
  const ceiling = ceilingOf(vnic, asked);
  const covered = isWithin(asked, ceiling) && asked.weight <= ceiling.weight;
  if (domain.privileged || covered) return { setting: asked, needs: [] };
  if (asked.queue !== null) {
    const most = formatLimits(ceiling);
    throw new ArrakisError('ARK_NOT_PERMITTED', `this queue was given ${most}`, {
      hint: 'set less, or ask root for more',
    });
  }
  const { cap, rate } = requireRate(plane, domain, vnic.device.name, asked);
  const { queue, direction } = asked;
  const weight = direction === 'receive' ? 1 : rate.weight;
  const given = deviceRate({ ...withinLink(vnic.device, rate), weight });
  return { setting: { queue, direction, ...given }, needs: [cap] };
}

export const setRate = handler(
  'rate.set',
  (plane, call, { vnic: id, queue = null, direction, weight, ...limit }) => {
    const domain = callerOf(call);
    const vnic = findVnic(plane, domain, id, 'rate');
    if (vnic.state === 'opening') throw beingOpened(vnic);
    const target = { queue, direction, ...UNLIMITED };
    const before = targetOf(vnic.rates, target) ?? target;
    const asked = { queue, direction, ...limit, weight: weight ?? before.weight };
    checkRate(vnic.device, vnic.spec, asked);
    return { vnic, isGift: domain.privileged, ...authorizeRate(plane, domain, vnic, asked) };
  },
  async (plane, { vnic, setting, needs, isGift }) => {
    // First: one that is revoked while the device is told takes the VNIC along.
    needVnic(plane, vnic, needs, () => vnicRevoked(plane, vnic));
    await vnic.attachment?.setRate(setting);
    if (vnic.removed) throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} was closed meanwhile`);
    for (const id of vnic.rateIds) plane.objects.remove(id);
    vnic.rates = replaced(vnic.rates, setting);
    if (isGift) vnic.ceilings = replaced(vnic.ceilings, setting);
    vnic.rateIds = addRates(plane.objects, vnic);
    keepVnic(plane, vnic);
    return { reply: { enforcedBy: enforcerOf(vnic.device, setting) } };
  },
);

export const setDoorbell = handler(
  'doorbell.set',
  (plane, call, { vnic: id, queue = null, usecs, frames }) => {
    const vnic = findVnic(plane, callerOf(call), id, 'doorbell');
    const queues = vnic.spec.queues ?? 1;
    if (queue !== null && queue >= queues) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `there is no queue ${queue}`, {
        hint: `this VNIC has ${queues}, counted from 0`,
      });
    }
    const { attachment } = vnic;
    if (attachment === null) {
      throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} is not open`, {
        hint: 'open it first',
      });
    }
    const setting: DoorbellSetting = { queue, usecs, frames };
    return { vnic, attachment, setting };
  },
  async (plane, { vnic, attachment, setting }) => {
    await attachment.setDoorbell(setting);
    const { queue } = setting;
    // One for all queues replaces what was set for each.
    const others = queue === null ? [] : vnic.doorbells.filter((other) => other.queue !== queue);
    vnic.doorbells = [...others, setting];
    if (!vnic.removed) keepVnic(plane, vnic);
    return { reply: {} };
  },
);

function beingOpened({ name }: Vnic): ArrakisError {
  return new ArrakisError('ARK_IN_USE', `VNIC ${name} is being opened`, { hint: 'ask again' });
}

/** How the doorbell of queue `pair` is coalesced now. */
export function doorbellOf(vnic: Vnic, pair: number): DoorbellSetting {
  const own = vnic.doorbells.find(({ queue }) => queue === pair);
  return own ?? vnic.doorbells.find(({ queue }) => queue === null) ?? RINGS_AT_ONCE;
}

const RINGS_AT_ONCE: DoorbellSetting = { queue: null, usecs: 0, frames: 0 };
