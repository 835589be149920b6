/** The operations on VNICs: open, close, listen. What a VNIC is stands in vnic.ts. */
import path from 'node:path';
import { ArrakisError } from '../../base/errors.ts';
import {
  authorizeVnic,
  IMPLICIT,
  requireDevice,
  requireRate,
  type VnicAuthority,
  wholeAddresses,
  withRate,
} from '../caps/authority.ts';
import type { Capability } from '../caps/space.ts';
import { endUse, useVnic, vnicOfCapability } from '../caps/vnic-hold.ts';
import { callerOf, handler, type Outcome } from '../handler.ts';
import { portsPath } from '../paths.ts';
import type { ControlPlane } from '../plane.ts';
import { requireVnicQuota } from '../policy/quota.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import type { Domain } from './domain.ts';
import { withinLink } from './rate.ts';
import {
  attachVnic,
  closeVnic,
  currentDevice,
  detachVnic,
  findVnic,
  moveVnic,
  planVnic,
  removeVnic,
  reserveVnic,
  useRevoked,
  type Vnic,
  type VnicPlan,
  type VnicUser,
  vnicReply,
  vnicsOf,
} from './vnic.ts';

/** Either a prepared VNIC, its own or by a capability, or the plan of a new one. */
type OpenPlan =
  | { prepared: Vnic; use: { domain: Domain; cap: Capability } | null }
  | { domain: Domain; plan: VnicPlan; authority: VnicAuthority };

function planPrepared(plane: ControlPlane, domain: Domain, name: string | undefined): OpenPlan {
  const all = vnicsOf(plane, domain).filter((vnic) => vnic.prepared);
  const named = name === undefined ? all : all.filter((vnic) => vnic.name === name);
  const prepared = named.find((vnic) => vnic.state === 'prepared') ?? named[0];
  if (prepared === undefined) {
    const has = all.map((vnic) => vnic.name).join(', ');
    throw new ArrakisError(
      'ARK_NOT_FOUND',
      name === undefined
        ? 'no VNIC was prepared for this domain'
        : `no VNIC "${name}" was prepared`,
      {
        hint:
          all.length > 0
            ? `it has ${has}`
            : 'start the application by `arrakis run --vnic SPEC -- ...`, or open one by spec',
      },
    );
  }
  refuseOpen(prepared);
  currentDevice(plane, prepared);
  return { prepared, use: null };
}

function refuseOpen(vnic: Vnic): void {
  if (vnic.state !== 'opening' && vnic.state !== 'open') return;
  const { domain, opener, name } = vnic;
  const by = opener === domain ? '' : ` by domain ${opener.name}`;
  throw new ArrakisError('ARK_IN_USE', `VNIC ${name} is open already${by}`, {
    hint: 'close it first (with `keep`, when it was not prepared), or prepare another',
  });
}

/** A VNIC of another domain, which has handed on its capability. */
function planGranted(plane: ControlPlane, domain: Domain, id: number): OpenPlan {
  const { vnic, cap } = vnicOfCapability(plane, domain, id);
  refuseOpen(vnic);
  currentDevice(plane, vnic);
  return { prepared: vnic, use: vnic.domain === domain ? null : { domain, cap } };
}

/** A new VNIC: the privileged may have any, others what their capabilities cover. */
function planNew(plane: ControlPlane, domain: Domain, spec: VnicSpec): OpenPlan {
  if (domain.privileged)
    return { domain, plan: planVnic(plane, spec, domain), authority: IMPLICIT };
  const device = requireDevice(plane, domain, spec);
  requireVnicQuota(plane, domain, spec);
  let authority = IMPLICIT;
  const { cap, rate } = requireRate(plane, domain, spec.device, {
    bitsPerSecond: spec.bitsPerSecond ?? null,
    packetsPerSecond: spec.packetsPerSecond ?? null,
    weight: spec.weight ?? null,
  });
  // What is asked for is refused beyond the link; what is merely allowed is not.
  const most =
    spec.bitsPerSecond ?? withinLink(plane.devices.require(spec.device), rate).bitsPerSecond;
  const plan = planVnic(plane, withRate(spec, { ...rate, bitsPerSecond: most }), domain, [], {
    within: () => wholeAddresses(plane, domain, spec.device),
    filters: (filters) => {
      authority = authorizeVnic(plane, domain, device, cap, spec.device, filters);
    },
  });
  return { domain, plan, authority };
}

export const open = handler(
  'vnic.open',
  (plane, call, { name, spec, cap }): OpenPlan => {
    const domain = callerOf(call);
    if (cap !== undefined) return planGranted(plane, domain, cap);
    if (spec !== undefined) return planNew(plane, domain, spec);
    return planPrepared(plane, domain, name);
  },
  async (plane, plan): Promise<Outcome<'vnic.open'>> => {
    let vnic: Vnic;
    if ('prepared' in plan) {
      vnic = plan.prepared;
      // One that is closing is free in a moment.
      await vnic.released;
      if (vnic.removed || vnic.state !== 'prepared') {
        throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} is no longer there`);
      }
      // The interface may have gone meanwhile.
      moveVnic(plane, vnic, currentDevice(plane, vnic));
    } else {
      const { domain, authority } = plan;
      vnic = reserveVnic(plane, domain, plan.plan, { prepared: false, authority });
    }
    let use: VnicUser | null = null;
    try {
      if ('prepared' in plan && plan.use !== null) {
        const { domain, cap } = plan.use;
        use = useVnic(plane, vnic, domain, cap, () => useRevoked(plane, vnic));
      }
      const attachment = await attachVnic(plane, vnic, null);
      if ('prepared' in plan && plan.use !== null && !plane.caps.has(plan.use.cap)) {
        await detachVnic(plane, vnic);
        throw new ArrakisError('ARK_GONE', `capability ${plan.use.cap.id} was revoked meanwhile`);
      }
      return {
        reply: vnicReply(vnic, attachment),
        fds: attachment.fds,
        sent: () => attachment.handedOver(),
      };
    } catch (error) {
      // Somebody else may use it by now.
      if (vnic.user === use) endUse(vnic);
      if (!vnic.prepared) await removeVnic(plane, vnic, 'it could not be opened');
      throw error;
    }
  },
);

export const close = handler(
  'vnic.close',
  (plane, call, { vnic, keep = false }) => {
    const domain = callerOf(call);
    return { domain, vnic: findVnic(plane, domain, vnic, 'close'), keep };
  },
  async (plane, { domain, vnic, keep }) => {
    const reason = 'it was closed by another domain';
    const isEnd = !keep && vnic.domain !== domain && vnic.user?.domain !== domain;
    // Who is still opening it hears of it by the answer.
    if (!isEnd && vnic.state === 'open' && vnic.opener !== domain) {
      vnic.opener.event('vnic.gone', { vnic: vnic.id, reason });
    }
    if (keep || vnic.user?.domain === domain) {
      vnic.prepared = true;
      await closeVnic(plane, vnic);
    } else if (isEnd) {
      vnic.domain.event('vnic.gone', { vnic: vnic.id, reason });
      await removeVnic(plane, vnic, `closed by domain ${domain.id}`);
    } else if (vnic.prepared) await closeVnic(plane, vnic);
    else await removeVnic(plane, vnic, 'closed');
    return { reply: {} };
  },
);

export const listen = handler(
  'vnic.listen',
  (plane, call, args) => {
    const domain = args.keep === true ? plane.self : callerOf(call);
    const spec = args.spec ?? { device: 'soft0' };
    const at = path.isAbsolute(args.path)
      ? path.normalize(args.path)
      : path.join(portsPath(plane.directory), args.path);
    if (!path.isAbsolute(args.path) && args.path.includes('/')) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `"${args.path}" is neither a name nor absolute`, {
        hint: 'give a name in the run directory, or an absolute path',
      });
    }
    const taken = [...plane.vnics.values()].find((vnic) => vnic.path === at);
    if (taken !== undefined) {
      throw new ArrakisError('ARK_IN_USE', `VNIC ${taken.name} listens at ${at}`, {
        hint: 'choose another path',
      });
    }
    return { domain, plan: planVnic(plane, spec, domain), at };
  },
  async (plane, { domain, plan, at }) => {
    const vnic = reserveVnic(plane, domain, plan, { prepared: false });
    try {
      const { mac } = await attachVnic(plane, vnic, at);
      const { address } = vnic.addressing;
      return { reply: { vnic: vnic.id, name: vnic.name, path: at, mac, address } };
    } catch (error) {
      await removeVnic(plane, vnic, 'it could not listen');
      throw error;
    }
  },
);
