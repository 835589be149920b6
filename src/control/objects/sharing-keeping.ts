/**
 * Regions, endpoints, connections and names of the daemon before. Each is a record of its own, written when it comes to
 * be or changes and struck out when it ends, by the table that it is in: a change costs the same however many there are.
 *
 * - Parts before what refers to them: a capability, then its endpoint or directory, then the name. Cut anywhere, what
 *   refers to something that is not there, and an endpoint without its name, is half of a request that nobody was answered.
 * - What is not taken over is struck out.
 */
import type { Safekeeping } from '../keeping.ts';
import type { SavedName } from '../names/tree.ts';
import type { ControlPlane } from '../plane.ts';
import type { SavedConnection, SavedEndpoint } from './endpoint.ts';
import type { SavedRegion } from './region-share.ts';

/** What is needed of it. */
export type Inherited = Pick<Safekeeping, 'unclaimed' | 'claim' | 'delete'>;

/** Go on with those of the daemon before; its domains and capabilities are there already. */
export function adoptSharing(plane: ControlPlane, keeping: Inherited): void {
  const { regions, endpoints, names } = plane;
  for (const id of keeping.unclaimed('region')) {
    const region = keeping.claim('region', id, 1);
    if (region === null) continue;
    const restored = regions.restore(region.state as SavedRegion, region.fds[0]!);
    if (restored === null) keeping.delete('region', id);
  }
  endpoints.reserveIds(nextId(keeping, 'connections'));
  names.reserveIds(nextId(keeping, 'names'));
  each(keeping, 'endpoint', (id, state) => endpoints.restore(id, state as SavedEndpoint));
  each(keeping, 'connection', (id, state) =>
    endpoints.restoreConnection(id, state as SavedConnection),
  );
  each(keeping, 'name', (id, state) => names.restore(id, state as SavedName));
  names.adopt();
  endpoints.adopt();
}

const nextId = (keeping: Inherited, what: string): number =>
  (keeping.claim('ids', what)?.state as { next: number } | undefined)?.next ?? 0;

/** Every record of `kind`, by ascending id, which is the order in which they were made. */
function each(
  keeping: Inherited,
  kind: string,
  restore: (id: number, state: unknown) => boolean,
): void {
  const ids = keeping.unclaimed(kind).map(Number);
  for (const id of ids.sort((a, b) => a - b)) {
    if (!restore(id, keeping.claim(kind, id)!.state)) keeping.delete(kind, id);
  }
}
