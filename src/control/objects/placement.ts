/** The operations on where a domain runs. How processors are chosen stands in control/placement.ts. */
import os from 'node:os';
import { ArrakisError } from '../../base/errors.ts';
import type { CoreRange } from '../caps/range.ts';
import { handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import type { Domain } from './domain.ts';
import { vnicsOf } from './vnic.ts';

function findDomain(plane: ControlPlane, id: number): Domain {
  const domain = plane.domains.get(id);
  if (domain !== undefined) return domain;
  throw new ArrakisError('ARK_NOT_FOUND', `there is no domain ${id}`, {
    hint: '`arrakis ls` lists them',
  });
}

/** Each once. Throws ARK_BAD_ARGUMENT for one that the machine has not. */
function checkCpus(cpus: readonly number[]): number[] {
  const count = os.cpus().length;
  const wrong = cpus.find((cpu) => cpu >= count);
  if (wrong === undefined) return [...new Set(cpus)];
  throw new ArrakisError('ARK_BAD_ARGUMENT', `there is no processor ${wrong}`, {
    hint: `there are ${count}, from 0 on`,
  });
}

/** What its `cores` capabilities say; one without a bound says all that there are. */
function coresOf(plane: ControlPlane, domain: Domain): number[] {
  const all = os.cpus().map((_, cpu) => cpu);
  const cores = plane.caps
    .of(domain.id)
    .filter((cap) => cap.kind === 'cores')
    .flatMap((cap) => (cap.range as CoreRange | null)?.cpus ?? all);
  return [...new Set(cores)].filter((cpu) => cpu < all.length);
}

/** The same user with the same program. */
const identity = ({ uid, exe, name }: Domain): string => `${uid} ${exe ?? name}`;

/** As many threads as there are queue pairs on its largest VNIC. */
const threadsOf = (plane: ControlPlane, domain: Domain): number =>
  Math.max(1, ...vnicsOf(plane, domain).map((vnic) => vnic.spec.queues ?? 1));

export const place = handler(
  'placement.place',
  (plane, _call, args) => {
    const domain = findDomain(plane, args.domain);
    const set = args.cpus === undefined ? coresOf(plane, domain) : checkCpus(args.cpus);
    return { domain, set };
  },
  (plane, { domain, set }) => {
    const others = [...plane.domains.values()].filter((other) => other !== domain);
    const taken = others.map((other) => other.cpus);
    const threads = threadsOf(plane, domain);
    const cpus =
      set.length === 0 ? [] : plane.placement.choose(identity(domain), set, threads, taken);
    domain.cpus = cpus;
    plane.keeping.put('domain', domain.id, domain.save());
    return { reply: { cpus } };
  },
);

export const move = handler(
  'placement.move',
  (plane, _call, args) => ({
    domain: findDomain(plane, args.domain),
    cpus: checkCpus(args.cpus),
  }),
  (plane, { domain, cpus }) => {
    plane.placement.remember(identity(domain), cpus);
    domain.cpus = cpus;
    plane.keeping.put('domain', domain.id, domain.save());
    domain.event('placement', { cpus });
    return { reply: { cpus } };
  },
);
