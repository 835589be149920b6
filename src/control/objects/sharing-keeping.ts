/**
 * Names, endpoints and their connections, for the next daemon: two records of the journal, written whole when they are
 * not what they were. Regions note themselves, as each comes with its descriptor.
 */
import type { Safekeeping } from '../keeping.ts';
import type { TreeSnapshot } from '../names/tree.ts';
import type { ControlPlane } from '../plane.ts';
import type { Operation } from '../protocol.ts';
import type { SavedRegion } from './region-share.ts';

/** Operations after which they may be different. A capability that goes takes names and endpoints along. */
const CHANGING: ReadonlySet<Operation> = new Set<Operation>([
  'name.make',
  'name.bind',
  'name.remove',
  'name.serve',
  'endpoint.create',
  'endpoint.connect',
  'endpoint.accept',
  'endpoint.leave',
  'endpoint.close',
  'cap.revoke',
  'cap.delete',
]);

export const changesSharing = (op: Operation): boolean => CHANGING.has(op);

/** What was written last, of each plane. */
const written = new WeakMap<ControlPlane, Map<string, string>>();

/** Note what they are now. */
export function keepSharing(plane: ControlPlane): void {
  const before = written.get(plane) ?? new Map<string, string>();
  written.set(plane, before);
  for (const [id, state] of [
    ['endpoints', plane.endpoints.snapshot()],
    ['names', plane.names.snapshot()],
  ] as const) {
    const text = JSON.stringify(state);
    if (before.get(id) === text) continue;
    before.set(id, text);
    plane.keeping.put('table', id, state);
  }
}

/** Go on with those of the daemon before; its domains and capabilities are there already. */
export function adoptSharing(plane: ControlPlane, keeping: Safekeeping): void {
  for (const id of keeping.unclaimed('region')) {
    const region = keeping.claim('region', id, 1);
    if (region === null) continue;
    const restored = plane.regions.restore(region.state as SavedRegion, region.fds[0]!);
    if (restored === null) keeping.delete('region', id);
  }
  const endpoints = keeping.claim('table', 'endpoints');
  if (endpoints !== null) {
    plane.endpoints.restore(endpoints.state as ReturnType<typeof plane.endpoints.snapshot>);
  }
  const names = keeping.claim('table', 'names');
  if (names !== null) plane.names.restore(names.state as TreeSnapshot);
  keepSharing(plane);
}
