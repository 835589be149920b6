/** The operations on names. The tree is in names/, what its names stand for in name-table.ts. */
import { ArrakisError } from '../../base/errors.ts';
import { GRANT, rightNames, rightsOf } from '../caps/rights.ts';
import type { Capability } from '../caps/space.ts';
import { callerOf, handler, type Outcome } from '../handler.ts';
import type { Binding } from '../names/node.ts';
import type { Node } from '../names/tree.ts';
import type { ReplyOf } from '../protocol.ts';
import { describeCapability } from './capability.ts';
import { directoryObject, lookupRights, type NameValue, startAt, whoIs } from './name-table.ts';
import { page } from './page.ts';

const MODE_DEFAULT = 0o755;

type Entry = ReplyOf<'name.list'>['entries'][number];

function describe(node: Node<NameValue>): Entry {
  const { name, owner, uid } = node;
  const common = { name, owner, uid };
  if (node.kind === 'directory') {
    const { gid, mode, server } = node;
    const object = directoryObject(node);
    return { ...common, kind: 'directory', gid, mode, server, object, rights: [] };
  }
  const none = { gid: null, mode: null, server: null };
  if (node.value.kind === 'endpoint') {
    const { object } = node.value.endpoint.cap;
    return { ...common, ...none, kind: 'endpoint', object, rights: ['connect'] };
  }
  const { cap, rights } = node.value;
  const { kind, object } = cap;
  return { ...common, ...none, kind: 'capability', object, rights: rightNames(kind, rights) };
}

/** The rights of a lookup: what was asked for, within what the capability has; it must allow to be handed on. */
function rightsFor(cap: Capability, names: readonly string[] | undefined): number {
  const rights = names === undefined ? lookupRights(cap) : rightsOf(cap.kind, names);
  if ((cap.rights & GRANT) === 0 || (rights & ~cap.rights) !== 0 || rights === 0) {
    const has = rightNames(cap.kind, cap.rights).join(', ');
    throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${cap.id} cannot be named like that`, {
      hint: `it needs the right grant and those of the name; it has ${has}`,
    });
  }
  return rights;
}

export const make = handler(
  'name.make',
  (plane, call, { path, at, mode = MODE_DEFAULT, keep = false }) => {
    const domain = callerOf(call);
    if (keep && !domain.privileged) {
      throw new ArrakisError('ARK_NOT_PERMITTED', 'only a privileged domain makes what stays', {
        hint: 'leave keep out: the directory then ends with this domain',
      });
    }
    const start = startAt(plane, domain, at);
    plane.names.tree.checkBind(whoIs(plane, domain), path, start);
    return { domain, path, options: { mode, keep }, start };
  },
  (plane, { domain, path, options, start }) => {
    const { directory, cap } = plane.names.make(domain, path, options, start);
    return { reply: { directory: directory.id, cap: cap.id } };
  },
);

export const bind = handler(
  'name.bind',
  (plane, call, { path, at, cap: id, rights: names }) => {
    const domain = callerOf(call);
    const cap = plane.caps.find(domain.id, id);
    const start = startAt(plane, domain, at);
    const who = whoIs(plane, domain);
    plane.names.tree.checkBind(who, path, start);
    const value = { kind: 'capability', cap, rights: rightsFor(cap, names) } as const;
    return { who, path, value, start };
  },
  (plane, { who, path, value, start }) => {
    plane.names.bindCapability(who, path, value, start);
    return { reply: {} };
  },
);

const found = (kind: Entry['kind'], cap: Capability | null): Outcome<'name.lookup'> => ({
  reply: { kind, capability: cap === null ? null : describeCapability(cap) },
});

export const lookup = handler(
  'name.lookup',
  (plane, call, { path, at }) => {
    const domain = callerOf(call);
    return { domain, name: plane.names.find(domain, path, startAt(plane, domain, at)) };
  },
  async (plane, { domain, name }): Promise<Outcome<'name.lookup'>> => {
    if ('asked' in name) {
      const cap = await name.asked();
      return found(cap.kind === 'endpoint' ? 'endpoint' : 'capability', cap);
    }
    const { node } = name;
    if (node.kind === 'directory') return found('directory', null);
    return found(node.value.kind, plane.names.deriveFor(domain, node as Binding<NameValue>));
  },
);

export const list = handler(
  'name.list',
  (plane, call, { path, at, after }) => {
    const domain = callerOf(call);
    const who = whoIs(plane, domain);
    return plane.names.tree.list(who, path, after, startAt(plane, domain, at));
  },
  (_plane, nodes) => {
    const { first, omitted } = page(nodes, describe);
    return { reply: { entries: first, omitted } };
  },
);

export const remove = handler(
  'name.remove',
  (plane, call, { path, at }) => {
    const domain = callerOf(call);
    const node = plane.names.tree.removable(whoIs(plane, domain), path, startAt(plane, domain, at));
    return { domain, node };
  },
  (plane, { domain, node }) => {
    // Its own domain knows; nobody else does.
    const endpoint =
      node.kind === 'binding' && node.value.kind === 'endpoint' ? node.value.endpoint : null;
    if (endpoint === null) plane.names.drop(node);
    else plane.endpoints.end(endpoint, 'its name was removed', endpoint.domain === domain);
    return { reply: {} };
  },
);

export const watch = handler(
  'name.watch',
  (plane, call, { path, at }) => {
    const domain = callerOf(call);
    return { who: whoIs(plane, domain), path, start: startAt(plane, domain, at) };
  },
  (plane, { who, path, start }) => ({
    reply: { watch: plane.names.tree.watch(who, path, start).id },
  }),
);

export const unwatch = handler(
  'name.unwatch',
  (plane, call, { watch: id }) => ({ who: whoIs(plane, callerOf(call)), id }),
  (plane, { who, id }) => {
    plane.names.tree.unwatch(who, id);
    return { reply: {} };
  },
);

export const serve = handler(
  'name.serve',
  (plane, call, { path, at }) => {
    const domain = callerOf(call);
    return { who: whoIs(plane, domain), path, start: startAt(plane, domain, at) };
  },
  (plane, { who, path, start }) => {
    plane.names.tree.serve(who, path, start);
    return { reply: {} };
  },
);

export const answer = handler(
  'name.answer',
  (plane, call, { question, cap: id, rights: names, refusal = '' }) => {
    const domain = callerOf(call);
    const cap = id === undefined ? null : plane.caps.find(domain.id, id);
    const rights = cap === null ? 0 : rightsFor(cap, names);
    return { domain, question, cap, rights, refusal };
  },
  (plane, { domain, question, cap, rights, refusal }) => {
    plane.names.answer(domain, question, cap, rights, refusal);
    return { reply: {} };
  },
);
