/** The operations on VNICs: open, close, listen. What a VNIC is stands in vnic.ts. */
import path from 'node:path';
import { ArrakisError } from '../../base/errors.ts';
import type { NicDevice } from '../devices/device.ts';
import { callerOf, handler, type Outcome } from '../handler.ts';
import { portsPath } from '../paths.ts';
import type { ControlPlane } from '../plane.ts';
import type { Domain } from './domain.ts';
import {
  attachVnic,
  currentDevice,
  detachVnic,
  findVnic,
  moveVnic,
  planVnic,
  removeVnic,
  reserveVnic,
  type Vnic,
  type VnicPlan,
  vnicReply,
  vnicsOf,
} from './vnic.ts';

/** Either a prepared VNIC or the plan of a new one. */
type OpenPlan = { prepared: Vnic; device: NicDevice } | { domain: Domain; plan: VnicPlan };

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
  if (prepared.state === 'opening' || prepared.state === 'open') {
    throw new ArrakisError('ARK_IN_USE', `VNIC ${prepared.name} is open already`, {
      hint: 'close it first, or prepare another',
    });
  }
  return { prepared, device: currentDevice(plane, prepared) };
}

export const open = handler(
  'vnic.open',
  (plane, call, { name, spec }): OpenPlan => {
    const domain = callerOf(call);
    if (spec === undefined) return planPrepared(plane, domain, name);
    if (!domain.privileged) {
      throw new ArrakisError('ARK_NOT_PERMITTED', 'this domain may open only what was prepared', {
        hint: 'start it by `sudo arrakis run --vnic SPEC -- ...`',
      });
    }
    return { domain, plan: planVnic(plane, spec, domain) };
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
      moveVnic(plane, vnic, plan.device);
    } else vnic = reserveVnic(plane, plan.domain, plan.plan, { prepared: false });
    try {
      const attachment = await attachVnic(plane, vnic, null);
      return {
        reply: vnicReply(vnic, attachment),
        fds: attachment.fds,
        sent: () => attachment.handedOver(),
      };
    } catch (error) {
      if (!vnic.prepared) await removeVnic(plane, vnic, 'it could not be opened');
      throw error;
    }
  },
);

export const close = handler(
  'vnic.close',
  (plane, call, { vnic }) => {
    const domain = callerOf(call);
    return { domain, vnic: findVnic(plane, domain, vnic) };
  },
  async (plane, { domain, vnic }) => {
    if (vnic.domain !== domain) {
      vnic.domain.event('vnic.gone', { vnic: vnic.id, reason: 'it was closed by another domain' });
      await removeVnic(plane, vnic, `closed by domain ${domain.id}`);
    } else if (vnic.prepared) await detachVnic(plane, vnic);
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
