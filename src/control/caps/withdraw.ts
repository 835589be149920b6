/**
 * Taking capabilities away: at once, or visibly, with a bounded time for their holders (Exokernel's lesson). Every
 * removal goes through here, so that holders hear of it and whoever waits knows when the data plane has stopped.
 */
import { LIMITS } from '../limits.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { Capability } from './space.ts';

export interface Withdrawal {
  /** Also the capability itself, not only what was derived from it. */
  readonly whole: boolean;
  /** Domain that asks for it: it needs no warning. 0: the daemon. */
  readonly by: number;
  readonly graceMs?: number;
}

/** Tell the holders of `removed`. `except` knows already. */
function tell(plane: ControlPlane, removed: readonly Capability[], except: number | null): void {
  for (const [holder, ids] of byHolder(removed)) {
    if (holder !== except) plane.domains.get(holder)?.notices.revoked(ids);
  }
}

function byHolder(caps: readonly Capability[]): Map<number, number[]> {
  const ids = new Map<number, number[]>();
  for (const { holder, id } of caps) {
    const list = ids.get(holder);
    if (list === undefined) ids.set(holder, [id]);
    else list.push(id);
  }
  return ids;
}

/** At once, with everything derived from it. Without effect when it has gone. */
export function dropCapability(plane: ControlPlane, cap: Capability, except: number | null): void {
  tell(plane, plane.caps.remove(cap), except);
}

/** The domain has ended: what it has goes, and what it gave. */
export const dropHolder = (plane: ControlPlane, domain: Domain): void =>
  dropHolderOf(plane, domain.id);

/** The same by the id of a domain that is not there any more. */
export function dropHolderOf(plane: ControlPlane, holder: number): void {
  tell(plane, plane.caps.removeHolder(holder), holder);
}

/**
 * Take away what was derived from `cap`, or all of it. Other holders are told first and get `graceMs`; the wait ends
 * early when they have deleted everything themselves. Resolves when it has happened, on the data plane too: the number
 * of capabilities that went.
 */
export async function withdraw(
  plane: ControlPlane,
  cap: Capability,
  { whole, by, graceMs = LIMITS.revokeGraceMsDefault }: Withdrawal,
): Promise<number> {
  const { caps } = plane;
  const earlier = new Set(plane.stopping.keys());
  const affected = [...caps.descendants(cap), ...(whole ? [cap] : [])];
  const warned = affected.filter(({ holder }) => holder !== by && holder !== 0);
  // From here on nothing new is derived from it.
  caps.freeze(cap);
  if (warned.length > 0 && graceMs > 0) {
    for (const [holder, ids] of byHolder(warned)) {
      plane.domains.get(holder)?.notices.revoking(ids, graceMs);
    }
    await allGone(plane, warned, graceMs);
  }
  const removed = whole ? caps.remove(cap) : caps.revoke(cap);
  caps.thaw(cap);
  tell(plane, removed, null);
  // What others set off before, and does not hang on these, may take as long as a hostile domain can make it.
  const gone = new Set(affected);
  const awaited = [...plane.stopping].filter(
    ([stopping, needs]) => !earlier.has(stopping) || needs.some((each) => gone.has(each)),
  );
  await Promise.allSettled(awaited.map(([stopping]) => stopping));
  return affected.length;
}

/** Resolves when none of `caps` is left, or after `ms`. */
function allGone(plane: ControlPlane, caps: readonly Capability[], ms: number): Promise<void> {
  return new Promise((resolve) => {
    let left = caps.length;
    const timer = setTimeout(finish, ms);
    const forget = caps.map((cap) =>
      plane.caps.onRemove(cap, () => {
        if (--left === 0) finish();
      }),
    );
    function finish(): void {
      clearTimeout(timer);
      for (const each of forget) each();
      resolve();
    }
  });
}

/** Have `withdraw` wait for the end of `stopping`: something that existed by `needs`, and that a removal set off. */
export function awaitStop(
  plane: ControlPlane,
  needs: readonly Capability[],
  stopping: Promise<void>,
): void {
  plane.stopping.set(stopping, needs);
  void stopping.finally(() => plane.stopping.delete(stopping));
}
