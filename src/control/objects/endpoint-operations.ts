/** The operations on endpoints. What an endpoint is stands in endpoint.ts. */
import { closeAll } from '../../ffi/fd.ts';
import { callerOf, handler, type Outcome } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import { findCapability } from './capability.ts';
import type { Domain } from './domain.ts';
import type { Endpoint } from './endpoint.ts';
import { startAt, whoIs } from './name-table.ts';

export const create = handler(
  'endpoint.create',
  (plane, call, { path, at, ...options }) => {
    const domain = callerOf(call);
    const who = whoIs(plane, domain);
    const start = startAt(plane, domain, at);
    plane.endpoints.check(domain);
    plane.names.tree.checkBind(who, path, start);
    return { domain, who, start, path, options };
  },
  (plane, { domain, who, start, path, options }) => {
    const endpoint = plane.endpoints.create(domain, path, options);
    endpoint.binding = plane.names.tree.bind(who, path, { kind: 'endpoint', endpoint }, start);
    return { reply: { endpoint: endpoint.id, cap: endpoint.cap.id } };
  },
);

export const connect = handler(
  'endpoint.connect',
  (plane, call, { path, at, cap }) => {
    const domain = callerOf(call);
    if (path === undefined) {
      const endpoint = plane.endpoints.find(findCapability(plane, domain, cap!));
      plane.endpoints.checkConnect(endpoint, domain);
      return { domain, endpoint, asked: null };
    }
    const found = plane.names.find(domain, path, startAt(plane, domain, at));
    if ('asked' in found) return { domain, endpoint: null, asked: found.asked };
    const endpoint = plane.names.endpointIn(found.node);
    plane.endpoints.checkConnect(endpoint, domain);
    return { domain, endpoint, asked: null };
  },
  async (plane, { domain, endpoint, asked }): Promise<Outcome<'endpoint.connect'>> => {
    if (endpoint !== null) return introduce(plane, endpoint, domain);
    // What a serving domain answers is a capability like others.
    const served = plane.endpoints.find(await asked!());
    plane.endpoints.checkConnect(served, domain);
    return introduce(plane, served, domain);
  },
);

function introduce(
  plane: ControlPlane,
  endpoint: Endpoint,
  connector: Domain,
): Outcome<'endpoint.connect'> {
  const { fields, fds } = plane.endpoints.connect(endpoint, connector);
  return { reply: fields, fds, sent: () => closeAll(fds) };
}

export const accept = handler(
  'endpoint.accept',
  (_plane, call, { connection }) => ({ domain: callerOf(call), connection }),
  (plane, { domain, connection }) => {
    plane.endpoints.accept(domain, connection);
    return { reply: {} };
  },
);

export const leave = handler(
  'endpoint.leave',
  (_plane, call, { connection }) => ({ domain: callerOf(call), connection }),
  (plane, { domain, connection }) => {
    plane.endpoints.leave(domain, connection);
    return { reply: {} };
  },
);

export const close = handler(
  'endpoint.close',
  (plane, call, { endpoint }) => {
    const domain = callerOf(call);
    return { domain, endpoint: plane.endpoints.own(domain, endpoint) };
  },
  (plane, { domain, endpoint }) => {
    plane.endpoints.end(endpoint, 'closed', endpoint.domain === domain);
    return { reply: {} };
  },
);
