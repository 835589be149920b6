/** The operations on capabilities. The model is in caps/. */
import { ArrakisError } from '../../base/errors.ts';
import type { Range } from '../caps/range.ts';
import { allRights, rightNames, rightsOf } from '../caps/rights.ts';
import { requireGiftShare } from '../caps/shares.ts';
import type { Capability } from '../caps/space.ts';
import { withdraw } from '../caps/withdraw.ts';
import { callerOf, handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import type { CapInfo } from '../protocol.ts';
import type { Domain } from './domain.ts';
import { page } from './page.ts';

/** A capability as the protocol shows it. */
export function describeCapability(cap: Capability): CapInfo {
  const { id, holder, kind, object, rights, range, parent } = cap;
  const names = rightNames(kind, rights);
  // The table's arrays are mutable; ours are not handed out.
  const copy = range === null ? null : structuredClone(range);
  return {
    cap: id,
    holder,
    kind,
    object,
    rights: names,
    range: copy as CapInfo['range'],
    parent: parent?.id ?? 0,
  };
}

/** Capability `id` of the caller; of anybody when it is privileged. ARK_NOT_FOUND. */
export function findCapability(plane: ControlPlane, domain: Domain, id: number): Capability {
  const cap = domain.privileged ? plane.caps.get(id) : undefined;
  return cap ?? plane.caps.find(domain.id, id);
}

/** One that the caller may take back: its own, or derived from its own. */
function findBelow(plane: ControlPlane, domain: Domain, id: number): Capability {
  const cap = plane.caps.get(id);
  for (let at: Capability | null = cap ?? null; at !== null; at = at.parent) {
    if (at.holder === domain.id) return cap!;
  }
  return findCapability(plane, domain, id);
}

/** The domain that is to get a capability. One that is ending is as absent as one that never was. */
function receiverOf(plane: ControlPlane, id: number): Domain {
  const domain = plane.domains.get(id);
  if (domain === undefined || domain.closed) {
    throw new ArrakisError('ARK_NOT_FOUND', `there is no domain ${id}`, {
      hint: 'it may have ended; the `domain` of its hello is its number',
    });
  }
  return domain;
}

interface Narrowing {
  rights?: string[] | undefined;
  range?: Range | undefined;
}

const narrowed = (cap: Capability, { rights, range }: Narrowing) => ({
  rights: rights === undefined ? cap.rights : rightsOf(cap.kind, rights),
  range: range === undefined ? cap.range : range,
});

export const list = handler(
  'cap.list',
  (plane, call, { after = 0, holder }) => {
    const domain = callerOf(call);
    const seen: Capability[] = [];
    for (const cap of domain.privileged ? plane.caps.all() : plane.caps.of(domain.id)) {
      if (cap.id > after && (holder === undefined || cap.holder === holder)) seen.push(cap);
    }
    return seen;
  },
  (_plane, seen) => {
    const { first, omitted } = page(seen, describeCapability);
    return { reply: { capabilities: first, omitted } };
  },
);

export const derive = handler(
  'cap.derive',
  (plane, call, { cap: id, ...narrowing }) => {
    const domain = callerOf(call);
    const cap = findCapability(plane, domain, id);
    return { cap, by: domain.id, ...narrowed(cap, narrowing) };
  },
  (plane, { cap, by, rights, range }) => {
    const reply = describeCapability(plane.caps.derive(cap, cap.holder, rights, range));
    tellHolder(plane, reply, by);
    return { reply };
  },
);

/** A capability was made for a domain by `by`; when that is another it does not know. */
function tellHolder(plane: ControlPlane, capability: CapInfo, by: number): void {
  if (capability.holder !== by)
    plane.domains.get(capability.holder)?.notices.granted(capability, by);
}

export const copy = handler(
  'cap.copy',
  (plane, call, { cap }) => ({
    by: callerOf(call).id,
    cap: findCapability(plane, callerOf(call), cap),
  }),
  (plane, { by, cap }) => {
    const reply = describeCapability(plane.caps.copy(cap));
    tellHolder(plane, reply, by);
    return { reply };
  },
);

export const grant = handler(
  'cap.grant',
  (plane, call, { cap: id, to, ...narrowing }) => {
    const domain = callerOf(call);
    const cap = findCapability(plane, domain, id);
    if (to === cap.holder) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `domain ${to} has capability ${id} itself`, {
        hint: 'cap.derive makes another one for its holder',
      });
    }
    const receiver = receiverOf(plane, to);
    requireGiftShare(plane, domain, receiver);
    return { cap, to: receiver, by: domain.id, ...narrowed(cap, narrowing) };
  },
  (plane, { cap, to, by, rights, range }) => {
    const reply = describeCapability(plane.caps.derive(cap, to.id, rights, range));
    tellHolder(plane, reply, by);
    return { reply };
  },
);

export const mint = handler(
  'cap.mint',
  (plane, call, { to, kind, object, rights, range = null }) => ({
    by: callerOf(call).id,
    to: receiverOf(plane, to),
    kind,
    object,
    rights: rights === undefined ? allRights(kind) : rightsOf(kind, rights),
    range: range as Range,
  }),
  (plane, { by, to, kind, object, rights, range }) => {
    const reply = describeCapability(plane.caps.mint(to.id, kind, object, rights, range));
    tellHolder(plane, reply, by);
    return { reply };
  },
);

export const revoke = handler(
  'cap.revoke',
  (plane, call, { cap, graceMs }) => ({
    cap: findBelow(plane, callerOf(call), cap),
    how: { whole: false, by: callerOf(call).id, ...(graceMs === undefined ? {} : { graceMs }) },
  }),
  async (plane, { cap, how }) => ({ reply: { removed: await withdraw(plane, cap, how) } }),
);

export const remove = handler(
  'cap.delete',
  (plane, call, { cap, graceMs }) => ({
    cap: findBelow(plane, callerOf(call), cap),
    how: { whole: true, by: callerOf(call).id, ...(graceMs === undefined ? {} : { graceMs }) },
  }),
  async (plane, { cap, how }) => ({ reply: { removed: await withdraw(plane, cap, how) } }),
);
