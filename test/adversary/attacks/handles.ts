/** Handles that are not the attacker's: acts for handles.test.ts. */
import { ControlChannel, openControlSocket } from '../../../src/arrakis/index.ts';
import { OPERATIONS } from '../../../src/control/protocol.ts';
import { closeAll } from '../../../src/ffi/fd.ts';
import { mapShared } from '../../../src/ffi/memory.ts';
import { codeOf } from '../actor.ts';
import { Control } from './control.ts';

/** Fields that name an object of somebody. */
const HANDLES = [
  'vnic',
  'cap',
  'filter',
  'endpoint',
  'connection',
  'watch',
  'question',
  'at',
  'domain',
];
/** What else a request takes to be well formed; for one field, or for all. */
const REST: Readonly<Record<string, object>> = {
  'filter.add': { text: 'udp dst port 7' },
  'filter.replace': { text: 'udp dst port 7', vnic: 1, filter: 1 },
  'filter.remove': { vnic: 1, filter: 1 },
  'filter.set': { filters: [] },
  'rate.set': { direction: 'send', bitsPerSecond: null, packetsPerSecond: null },
  'doorbell.set': { usecs: 0, frames: 0 },
  'capture.start': {},
  'cap.grant': { to: 1 },
  'cap.mint': { to: 1, kind: 'device', object: 'soft0' },
  'name.bind': { path: '/app/forged', cap: 1 },
  'name.answer': { refusal: 'no' },
  'name.answer cap': { question: 1 },
  'network.resolve': { address: 0x0a4d_0001 },
  'placement.place': {},
  'placement.move': { cpus: [0] },
  'endpoint.create': { path: '/app/forged' },
  'endpoint.connect': {},
};
const PATH = { path: '/x' };

/** Well formed, and nobody's; and what is no handle at all. */
const NOBODYS = [0, 999_999_999, 2 ** 31, Number.MAX_SAFE_INTEGER];
const MALFORMED = [-1, 1.5, 2 ** 53, 1e308, '1', '', null, true, [1], {}, '__proto__', [[]]];

interface Forged {
  readonly op: string;
  readonly field: string;
  readonly value: unknown;
  readonly code: string;
}

/** Requests in which a field is a handle. */
export const handleFields = (): { op: string; field: string }[] =>
  Object.entries(OPERATIONS).flatMap(([op, { args, requestFds }]) =>
    requestFds.length > 0
      ? []
      : HANDLES.filter((field) => field in args.shape).map((field) => ({ op, field })),
  );

/** Every operation with every handle: each of `others` (by field), nobody's, and nonsense. */
async function forge({ others }: { others: Record<string, number[]> }): Promise<Forged[]> {
  const results: Forged[] = [];
  for (const { op, field } of handleFields()) {
    // Nonsense closes a connection in the end: each has its own.
    const control = await Control.open();
    const shape = OPERATIONS[op as keyof typeof OPERATIONS].args.shape;
    const rest = {
      ...('path' in shape && !op.startsWith('endpoint') ? PATH : {}),
      ...(REST[`${op} ${field}`] ?? REST[op]),
    };
    for (const value of [...(others[field] ?? []), ...NOBODYS, ...MALFORMED]) {
      const args = {
        ...rest,
        ...(op === 'endpoint.connect' && field === 'at' ? PATH : {}),
        [field]: value,
      };
      const code = await control.codeOfAsking(op, args);
      results.push({ op, field, value, code });
    }
    control.close();
  }
  return results;
}

/** Handles of one connection used over another, and after the end of the first. What came of each. */
async function replay(): Promise<string[]> {
  const [first, second] = [await Control.open(), await Control.open()];
  const region = await first.ask('region.create', { bytes: 4096 });
  const endpoint = await first.ask('endpoint.create', { path: `/app/first-${first.domain}` });
  const watch = await first.ask('name.watch', { path: '/app' });
  const made = await first.ask('name.make', { path: `/app/dir-${first.domain}`, mode: 0o700 });
  const tries = [
    ['region.open', { cap: region.cap }],
    ['cap.derive', { cap: region.cap }],
    ['cap.copy', { cap: region.cap }],
    ['cap.revoke', { cap: region.cap }],
    ['cap.delete', { cap: region.cap }],
    ['cap.grant', { cap: region.cap, to: second.domain }],
    ['name.bind', { path: '/app/stolen', cap: region.cap }],
    ['endpoint.close', { endpoint: endpoint.endpoint }],
    ['endpoint.connect', { cap: endpoint.cap }],
    ['name.unwatch', { watch: watch.watch }],
    ['name.list', { path: '/x', at: made.cap }],
    ['name.make', { path: '/x', at: made.cap }],
  ] as const;
  const codes: string[] = [];
  const all = async (): Promise<void> => {
    for (const [op, args] of tries) codes.push(await second.codeOfAsking(op, args));
  };
  await all();
  // They are still worth something where they belong.
  codes.push(await first.codeOfAsking('region.open', { cap: region.cap }));
  first.close();
  await all();
  second.close();
  return codes;
}

/** Two connections that number their requests alike, at once: each gets its own answers. Wrong ones. */
async function sameNumbers(): Promise<number> {
  const controls = await Promise.all([Control.open(), Control.open(), Control.open()]);
  let wrong = 0;
  await Promise.all(
    controls.map(async (control, i) => {
      const bytes = (i + 1) * 4096;
      for (let n = 0; n < 50; n++) {
        const region = await control.ask('region.create', { bytes });
        if (region.bytes !== bytes) wrong++;
        const { capabilities } = (await control.ask('cap.list')) as {
          capabilities: { holder: number }[];
        };
        if (capabilities.some(({ holder }) => holder !== control.domain)) wrong++;
        await control.ask('cap.delete', { cap: region.cap });
      }
    }),
  );
  for (const control of controls) control.close();
  return wrong;
}

/** Descriptor 3 is the channel of a domain that was prepared for somebody else. What comes of using it. */
async function useInherited({ times }: { times: number }): Promise<string[]> {
  const channel = new ControlChannel(openControlSocket({ env: { ARRAKIS_FD: '3' } }), {
    onEvent: (_name, _body, fds) => closeAll(fds),
    onClose: () => {},
  });
  const codes: string[] = [];
  const ask = async (op: string, args: object): Promise<void> => {
    codes.push(
      await channel.request(op as never, args as never).then(({ fds }) => {
        closeAll(fds);
        return 'ok';
      }, codeOf),
    );
  };
  for (let n = 0; n < times; n++) {
    await ask('hello', { protocol: 1 });
    await ask('vnic.open', {});
    await ask('cap.list', {});
    await ask('list', {});
  }
  channel.close();
  return codes;
}

const mapped: { bytes: Uint8Array }[] = [];

/** Open a region that the attacker was given, and keep it mapped. */
async function openGiven({ cap }: { cap: number }): Promise<string> {
  const control = await Control.shared();
  const { reply, fds } = await control.channel.request('region.open', { cap });
  const { buffer } = mapShared(fds[0]!, reply.bytes, 0, false, true);
  closeAll(fds);
  const bytes = new Uint8Array(buffer);
  mapped.push({ bytes });
  return Buffer.from(bytes.subarray(0, 32)).toString('hex');
}

/** Ask by the first connection. */
const ask = async ({ op, args }: { op: string; args: object }): Promise<string> =>
  (await Control.shared()).codeOfAsking(op, args);

const askReply = async ({ op, args }: { op: string; args: object }): Promise<object> =>
  (await Control.shared()).ask(op, args);

const whoAmI = async (): Promise<number> => (await Control.shared()).domain;

export const handleActs = {
  forge,
  replay,
  sameNumbers,
  useInherited,
  openGiven,
  ask,
  askReply,
  whoAmI,
};
