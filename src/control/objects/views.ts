/** What the caller may see: `list` and `stats`, in pages that fit in a message; and `shutdown`. */
import type { Counters } from '../devices/device.ts';
import { callerOf, handler } from '../handler.ts';
import type { ReplyOf } from '../protocol.ts';
import { page } from './page.ts';
import { describeObject } from './table.ts';

export const list = handler(
  'list',
  (_plane, call, { after = -1 }) => ({ domain: callerOf(call), after }),
  (plane, { domain, after }) => {
    const seen = [...plane.objects.all()].filter(
      (object) => object.id > after && (domain.privileged || object.owner === domain.id),
    );
    const { first, omitted } = page(seen, describeObject);
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
    const { first, omitted } = page(rows, (row) => row);
    return { reply: { daemon: { ...plane.counters }, vnics: first, omitted } };
  },
);

export const shutdown = handler(
  'shutdown',
  () => null,
  (plane) => ({ reply: {}, sent: () => plane.host.shutdown('a client asked for it') }),
);
