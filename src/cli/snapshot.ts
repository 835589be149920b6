/** Everything that a user may see of the daemon, at one moment: what `ls`, `show`, `top` and `metrics` print. */
import type { Domain, ObjectInfo } from '../arrakis/index.ts';
import { ArrakisError } from '../base/errors.ts';
import type { DeviceInfo, ReplyOf } from '../control/protocol.ts';

type Stats = ReplyOf<'stats'>;
export type VnicStats = Stats['vnics'][number];
export type CounterValues = VnicStats['counters'];

export interface Snapshot {
  readonly devices: readonly DeviceInfo[];
  readonly objects: readonly ObjectInfo[];
  readonly stats: readonly VnicStats[];
  /** The daemon's own counters. */
  readonly daemon: Stats['daemon'];
}

/** Page by page. Rejects as the requests do. */
export async function takeSnapshot(domain: Domain): Promise<Snapshot> {
  const objects: ObjectInfo[] = [];
  for (let after = 0; ; ) {
    const { reply } = await domain.request('list', { after });
    objects.push(...reply.objects);
    if (reply.omitted === 0 || reply.objects.length === 0) break;
    after = reply.objects.at(-1)!.id;
  }
  const stats: VnicStats[] = [];
  let daemon: Stats['daemon'] = {};
  for (let after = 0; ; ) {
    const { reply } = await domain.request('stats', { after });
    daemon = reply.daemon;
    stats.push(...reply.vnics);
    if (reply.omitted === 0 || reply.vnics.length === 0) break;
    after = reply.vnics.at(-1)!.vnic;
  }
  const { devices } = (await domain.request('device.list', {})).reply;
  return { devices, objects, stats, daemon };
}

/** A counter as a number; 0 when the device does not count it. */
export const counterOf = (counters: CounterValues, name: string): number =>
  Number(counters[name] ?? 0);

/** Reasons for drops that happened, with their counts, the most frequent first. */
export function dropsOf(counters: CounterValues): [reason: string, count: number][] {
  return Object.entries((counters.drops ?? {}) as Record<string, number>)
    .filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1]);
}

/**
 * The object that a user means by `wanted`, its number or its name, of one of `kinds` (any when empty). ARK_NOT_FOUND
 * names what there is; ARK_BAD_ARGUMENT when several have the name.
 */
export function findObject(
  { objects }: Pick<Snapshot, 'objects'>,
  wanted: string,
  kinds: readonly ObjectInfo['kind'][] = [],
): ObjectInfo {
  const candidates = objects.filter((o) => kinds.length === 0 || kinds.includes(o.kind));
  const byId = candidates.find((o) => String(o.id) === wanted);
  if (byId !== undefined) return byId;
  const named = candidates.filter((o) => o.name === wanted);
  if (named.length === 1) return named[0]!;
  const what = kinds.length === 1 ? kindText(kinds[0]!) : 'object';
  if (named.length > 1) {
    const ids = named.map((o) => `${o.kind} ${o.id}`).join(', ');
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${wanted}" is the name of ${ids}`, {
      hint: 'give the number',
    });
  }
  const names = candidates.map((o) => o.name).slice(0, 20);
  throw new ArrakisError('ARK_NOT_FOUND', `there is no ${what} "${wanted}" that you may see`, {
    hint: names.length === 0 ? 'there is none at all' : `there are: ${names.join(', ')}`,
  });
}

const kindText = (kind: ObjectInfo['kind']): string => (kind === 'vnic' ? 'VNIC' : kind);
