/** What the caller may see: `list` and `stats`, in pages that fit in a message; and `shutdown`. */
import type { Counters } from '../devices/device.ts';
import { callerOf, handler } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import type { ReplyOf } from '../protocol.ts';
import { describeObject } from './table.ts';

/** Left for the reply's envelope and the daemon's own counters. */
const ENVELOPE_BYTES = 2048;
/** Messages are UTF-8, and lengths here are of strings: names are ASCII, error texts may not be. */
const PAGE_CHARACTERS = (LIMITS.messageBytesMax - ENVELOPE_BYTES) / 2;

/** The first of `items` whose JSON fits on a page. At least one, so that paging ends. */
function page<T>(items: readonly T[]): { first: T[]; omitted: number } {
  let characters = 0;
  let count = 0;
  for (const item of items) {
    characters += JSON.stringify(item).length + 1;
    if (count > 0 && characters > PAGE_CHARACTERS) break;
    count++;
  }
  return { first: items.slice(0, count), omitted: items.length - count };
}

export const list = handler(
  'list',
  (_plane, call, { after = -1 }) => ({ domain: callerOf(call), after }),
  (plane, { domain, after }) => {
    const seen = [...plane.objects.all()].filter(
      (object) => object.id > after && (domain.privileged || object.owner === domain.id),
    );
    const { first, omitted } = page(seen.map(describeObject));
    return { reply: { objects: first, omitted } };
  },
);

async function countersOrNone(read: () => Promise<Counters>): Promise<Counters> {
  try {
    return await read();
  } catch (error) {
    return { error: (error as Error).message.slice(0, 200) };
  }
}

export const stats = handler(
  'stats',
  (plane, call, { after = -1 }) => {
    const domain = callerOf(call);
    return [...plane.vnics.values()].filter(
      (vnic) => vnic.id > after && (domain.privileged || vnic.domain === domain),
    );
  },
  async (plane, vnics) => {
    const rows: ReplyOf<'stats'>['vnics'] = await Promise.all(
      vnics.map(async ({ id, name, attachment }) => ({
        vnic: id,
        name,
        counters: attachment === null ? {} : await countersOrNone(() => attachment.counters()),
      })),
    );
    const { first, omitted } = page(rows);
    return { reply: { daemon: { ...plane.counters }, vnics: first, omitted } };
  },
);

export const shutdown = handler(
  'shutdown',
  () => null,
  (plane) => ({ reply: {}, sent: () => plane.host.shutdown('a client asked for it') }),
);
