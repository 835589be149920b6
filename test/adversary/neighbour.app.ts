/**
 * The neighbour: two VNICs of one device, and frames from one to the other and back, each numbered, checked byte by byte
 * on both ends. It has a region, an endpoint, a name and a watch, asks the daemon something all the time, and keeps a
 * secret in every memory that it shares with a device.
 *
 *   neighbour.app.js SPEC SPEC
 */
import { randomBytes } from 'node:crypto';
import { connect, type NicQueue, parseVnicSpec, type Vnic } from '../../src/arrakis/index.ts';
import { setAffinity } from '../../src/ffi/process.ts';
import { sendBytes } from '../interop/af-xdp.harness.ts';
import { udpFrame } from '../support/frames.ts';
import { sleep, until } from '../support/until.ts';
import { codeOf, serveActs } from './actor.ts';
import type { NeighbourInfo, Report } from './stage.ts';

const PORT = 4242;
const BATCH = 64;
const SLOTS = 4096;
const OUTSTANDING_MAX = 256;
const BURST = 4;
/** Frames that a report is about, at least. */
const SENT_MIN = 100;
const PERIOD_MS = 2;
const CONTROL_PERIOD_MS = 20;
/** What has not come back by then is lost. */
const HOME_MS_MAX = 5000;
const SEQUENCE_AT = 14 + 20 + 8;
const PAYLOAD_BYTES = 100;
const SECRET_BYTES = 32;

const secret = randomBytes(SECRET_BYTES);
const domain = await connect({ name: 'neighbour' });
const [here, there] = (await Promise.all(
  process.argv.slice(2).map((text) => domain.openVnic(parseVnicSpec(text))),
)) as [Vnic, Vnic];

/** A whole frame from one end to the other; the number is still to be put in. */
function template(from: Vnic, to: Vnic): Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES, 'n');
  payload.set(secret, 4);
  const end = ({ mac, address: ip }: Vnic) => ({ mac, ip, port: PORT });
  const bytes = Buffer.from(udpFrame(end(from), end(to), payload));
  // No checksum (RFC 768): the number changes without it.
  bytes.writeUInt16BE(0, 40);
  return bytes;
}

const out = template(here, there);
const back = template(there, here);
const sentAt = new Float64Array(SLOTS);
const frames = new Uint32Array(BATCH);
const lengths = new Uint16Array(BATCH);
let sequence = 0;
let counts = { sent: 0, returned: 0, corrupt: 0, foreign: 0 };
let tripsUs: number[] = [];
let control = { requests: 0, slowestMs: 0 };
let pacing = true;
let gone = false;
for (const vnic of [here, there]) {
  vnic.on('gone', () => {
    gone = true;
  });
}

/** The number of a frame that is `expected` but for it; -1 when it is not. Counted. */
function numberOf(queue: NicQueue, at: number, length: number, expected: Buffer): number {
  const { u8, view } = queue.memory;
  if (length !== expected.length || view.getUint16(at + 34) !== PORT) {
    counts.foreign++;
    return -1;
  }
  for (let i = 0; i < length; i++) {
    if (u8[at + i] === expected[i] || (i >= SEQUENCE_AT && i < SEQUENCE_AT + 4)) continue;
    counts.corrupt++;
    return -1;
  }
  return view.getUint32(at + SEQUENCE_AT);
}

/** Take what `queue` has; each is `expected`, and its number goes to `taken`. */
function receive(queue: NicQueue, expected: Buffer, taken: (number: number) => void): number {
  queue.reclaim(BATCH);
  const count = queue.rxBatch(frames, lengths, BATCH);
  // The frames are looked at before anything is sent: that uses no shared array.
  const numbers: number[] = [];
  for (let i = 0; i < count; i++) {
    numbers.push(numberOf(queue, frames[i]!, lengths[i]!, expected));
    queue.free(frames[i]!);
  }
  for (const number of numbers) if (number >= 0) taken(number);
  return count;
}

function send(queue: NicQueue, bytes: Buffer, number: number): boolean {
  bytes.writeUInt32BE(number, SEQUENCE_AT);
  return sendBytes(queue, bytes);
}

const answer = (number: number): void => {
  if (!send(there.queue, back, number)) throw new Error('no room to answer');
};

function home(number: number): void {
  const slot = number % SLOTS;
  if (sentAt[slot] === 0) {
    counts.corrupt++;
    return;
  }
  tripsUs.push((performance.now() - sentAt[slot]!) * 1000);
  sentAt[slot] = 0;
  counts.returned++;
}

const turnThere = (): number => receive(there.queue, out, answer);
const turnHere = (): number => receive(here.queue, back, home);

function ask(): boolean {
  if (counts.sent - counts.returned >= OUTSTANDING_MAX || sentAt[sequence % SLOTS] !== 0)
    return false;
  sentAt[sequence % SLOTS] = performance.now();
  if (!send(here.queue, out, sequence)) {
    sentAt[sequence % SLOTS] = 0;
    return false;
  }
  sequence++;
  counts.sent++;
  return true;
}

for (const [vnic, turn] of [
  [here, turnHere],
  [there, turnThere],
] as const) {
  vnic.poll(turn, { spinUs: 0 });
}
setInterval(() => {
  for (let i = 0; pacing && i < BURST; i++) ask();
}, PERIOD_MS);

async function watchControl(): Promise<void> {
  for (;;) {
    const start = performance.now();
    await domain.request('list', {});
    control.slowestMs = Math.max(control.slowestMs, performance.now() - start);
    control.requests++;
    await sleep(CONTROL_PERIOD_MS);
  }
}

const region = await domain.createRegion(4096, { name: 'secret' });
Buffer.from(region.buffer).set(secret);
const path = `/app/neighbour-${domain.info.domain}`;
const listener = await domain.listen(path);
/** Why connections ended, by the domain at the other end, and how many messages came. */
const endings = new Map<number, string>();
void (async () => {
  for await (const channel of listener) {
    channel.serve((message) => message);
    channel.on('close', (reason) => endings.set(channel.peer.domain, reason));
  }
})();

/** The end of the connection with `domain`, when it has come. */
async function endingWith({ domain: peer }: { domain: number }): Promise<string> {
  await until(() => endings.has(peer), HOME_MS_MAX, 'the connection ends');
  return endings.get(peer)!;
}

/** Connect to somebody and ask something. What came of it, and of the channel. */
async function call({ to }: { to: string }): Promise<{ code: string; closed: boolean }> {
  const channel = await domain.connect(to);
  const code = await channel.request('hello', { timeoutMs: 500 }).then(() => 'ok', codeOf);
  const { closed } = channel;
  channel.close();
  return { code, closed };
}
const capabilities = async (): Promise<number[]> =>
  (await domain.capabilities()).map(({ cap }) => cap).sort((a, b) => a - b);
const { reply: watching } = await domain.request('name.watch', { path: '/app' });
const caps = await capabilities();
void watchControl();

async function isIntact(): Promise<boolean> {
  const now = new Set(await capabilities());
  const { entries } = (await domain.request('name.list', { path: '/app' })).reply;
  return (
    !gone &&
    caps.every((cap) => now.has(cap)) &&
    Buffer.from(region.buffer).subarray(0, SECRET_BYTES).equals(secret) &&
    entries.some(({ name }) => path.endsWith(`/${name}`))
  );
}

async function report(): Promise<Report> {
  // One that is quick to ask gets something to look at.
  const enough = () => counts.sent >= SENT_MIN && control.requests > 0;
  await until(enough, HOME_MS_MAX).catch(() => {});
  pacing = false;
  await until(() => counts.returned >= counts.sent, HOME_MS_MAX).catch(() => {});
  const sorted = tripsUs.sort((a, b) => a - b);
  const intact = await isIntact();
  const said = {
    ...counts,
    p50Us: sorted[sorted.length >>> 1] ?? 0,
    slowestMs: (sorted.at(-1) ?? 0) / 1000,
    controlRequests: control.requests,
    controlSlowestMs: control.slowestMs,
    intact,
  };
  sentAt.fill(0);
  counts = { sent: 0, returned: 0, corrupt: 0, foreign: 0 };
  tripsUs = [];
  control = { requests: 0, slowestMs: 0 };
  pacing = true;
  return said;
}

/** Round trips with at most `window` under way, for `ms`, without a pause. The clock of its own frames only. */
function measure({ ms, window }: { ms: number; window: number }): {
  perSecond: number;
  p50Us: number;
} {
  pacing = false;
  tripsUs = [];
  const start = performance.now();
  const before = counts.returned;
  for (let now = start; now < start + ms; now = performance.now()) {
    while (counts.sent - counts.returned < window && ask()) {}
    for (let i = 0; i < 8; i++) {
      turnThere();
      turnHere();
    }
  }
  const seconds = (performance.now() - start) / 1000;
  const perSecond = (counts.returned - before) / seconds;
  const sorted = tripsUs.sort((a, b) => a - b);
  const p50Us = sorted[sorted.length >>> 1] ?? 0;
  pacing = true;
  return { perSecond, p50Us };
}

let shared: { cap: number; gift: number; name: string } | null = null;

/** Give domain `to` something on purpose: a page that was made for it, a way to connect, a name. */
async function share({ to }: { to: number }): Promise<object> {
  const page = await domain.createRegion(4096, { name: 'shared' });
  new Uint8Array(page.buffer).fill(0x73);
  const given = await page.grant(to, 'read');
  const gift = (await domain.request('cap.grant', { cap: listener.cap, to, rights: ['connect'] }))
    .reply.cap;
  const name = `/app/shared-${page.id}`;
  await page.bind(name, 'read');
  shared = { cap: page.cap, gift, name };
  return { region: given.cap, endpoint: gift, name };
}

/** Take back all of it. */
async function unshare(): Promise<void> {
  const { cap, gift, name } = shared!;
  await domain.revoke(gift, { whole: true, graceMs: 0 });
  await domain.names.remove(name);
  await domain.revoke(cap, { whole: true, graceMs: 0 });
}

/** Get one of everything that one may want, and give it back. What it was refused. */
async function prosper({ device }: { device: string }): Promise<string[]> {
  const refused: string[] = [];
  const want = async (what: string, body: () => Promise<unknown>): Promise<void> => {
    await body().catch((error: Error) => refused.push(`${what}: ${error.message}`));
  };
  const spec = { device, address: there.address + 1, prefix: 24 };
  await want('a VNIC', async () => (await domain.openVnic(spec)).close());
  await want('a region', async () => {
    const more = await domain.createRegion(64 << 20);
    more.close();
    await domain.revoke(more.cap, { whole: true });
  });
  await want('a name', async () => {
    await domain.request('name.make', { path: `${path}-dir` });
    await domain.names.remove(`${path}-dir`);
  });
  await want('a watch', async () => {
    const { reply } = await domain.request('name.watch', { path: '/app' });
    await domain.request('name.unwatch', { watch: reply.watch });
  });
  await want('an endpoint', async () => (await domain.listen(`${path}-more`)).close());
  await want('a capability', async () => {
    const { cap } = await domain.derive(listener.cap);
    await domain.revoke(cap, { whole: true });
  });
  return refused;
}

const info: NeighbourInfo = {
  domain: domain.info.domain,
  vnics: [here.id, there.id],
  macs: [here.mac, there.mac],
  addresses: [here.address, there.address],
  caps,
  region: { id: region.id, cap: region.cap },
  endpoint: { id: listener.endpoint, cap: listener.cap, path },
  watch: watching.watch,
  secret: secret.toString('hex'),
};

serveActs({
  open: () => info,
  report,
  measure,
  endingWith,
  call,
  prosper,
  share,
  unshare,
  pin: ({ cpu }: { cpu: number }) => setAffinity([cpu]),
  narrow: async (filters: { here: string[]; there: string[] }) => {
    await here.replaceFilters(filters.here);
    await there.replaceFilters(filters.there);
  },
});
