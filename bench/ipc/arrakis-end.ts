/**
 * Two applications over an endpoint: `arrakis-end.js link|channel server|client`. `link` polls the rings, as an
 * application with a core of its own does; `channel` awaits JSON requests in Node's event loop.
 */
import {
  type Channel,
  connect,
  type Domain,
  type MessageLink,
  NONE,
} from '../../src/arrakis/index.ts';
import { endWithParent, type IpcJob, readJob, report } from './job.ts';

const PATH = '/app/bench';
/** Messages that are published together. */
const BATCH = 32;
/** Requests of a channel in flight, when it is about their rate. */
const WINDOW = 128;

function sendOne(link: MessageLink, value: number, bytes: number): void {
  let at = link.reserve(bytes);
  while (at === NONE) at = link.reserve(bytes);
  link.memory.view.setInt32(at, value, true);
  link.commit(bytes);
}

function receiveOne(link: MessageLink): number {
  while (link.receive() === NONE) if (link.state !== 0) throw new Error(link.endReason);
  const value = link.memory.view.getInt32(link.offset, true);
  link.release();
  return value;
}

function serveLink(link: MessageLink, job: IpcJob): void {
  for (let n = 0; n < job.warmup + job.roundTrips; n++) {
    const value = receiveOne(link);
    sendOne(link, value, job.bytes);
    link.publish();
  }
  const { view } = link.memory;
  for (let n = 0; n < job.messages; ) {
    let count = 0;
    while (count < BATCH && link.receive() !== NONE) {
      if (view.getInt32(link.offset, true) !== n++) throw new Error('a message is missing');
      count++;
    }
    if (count > 0) link.release();
    else if (link.state !== 0) throw new Error(link.endReason);
  }
  sendOne(link, -1, job.bytes);
  link.publish();
}

function driveLink(link: MessageLink, job: IpcJob): void {
  const samples = new Float64Array(job.roundTrips);
  for (let n = -job.warmup; n < job.roundTrips; n++) {
    const start = performance.now();
    sendOne(link, n, job.bytes);
    link.publish();
    if (receiveOne(link) !== n) throw new Error('a wrong answer');
    if (n >= 0) samples[n] = (performance.now() - start) * 1000;
  }
  const start = performance.now();
  const { view } = link.memory;
  for (let n = 0; n < job.messages; ) {
    let count = 0;
    for (; count < BATCH && n < job.messages; count++) {
      const at = link.reserve(job.bytes);
      if (at === NONE) break;
      view.setInt32(at, n++, true);
      link.commit(job.bytes);
    }
    link.publish();
    if (count === 0 && link.state !== 0) throw new Error(link.endReason);
  }
  if (receiveOne(link) !== -1) throw new Error('a wrong answer');
  report(samples, job, (performance.now() - start) / 1000);
}

async function driveChannel(channel: Channel, job: IpcJob): Promise<void> {
  const message = {
    n: 0,
    text: 'x'.repeat(Math.max(0, job.bytes - '{"n":0000,"text":""}'.length)),
  };
  const samples = new Float64Array(job.roundTrips);
  for (let n = -job.warmup; n < job.roundTrips; n++) {
    const start = performance.now();
    await channel.request(message);
    if (n >= 0) samples[n] = (performance.now() - start) * 1000;
  }
  const start = performance.now();
  let left = job.messages;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await channel.request(message);
  };
  await Promise.all(Array.from({ length: WINDOW }, worker));
  report(samples, job, (performance.now() - start) / 1000);
}

async function serve(domain: Domain, kind: string, job: IpcJob): Promise<void> {
  if (kind === 'link') {
    const listener = await domain.listenLinks(PATH);
    process.stdout.write('ready\n');
    const { value } = await listener.next();
    serveLink(value.link, job);
    return;
  }
  const listener = await domain.listen(PATH);
  process.stdout.write('ready\n');
  for await (const channel of listener) channel.serve((message) => message);
}

const [kind, role] = process.argv.slice(2) as [string, string];
const job = readJob();
const domain = await connect({ name: `bench-${role}` });
endWithParent();
if (role === 'server') await serve(domain, kind, job);
else if (kind === 'link') driveLink((await domain.connectLink(PATH)).link, job);
else await driveChannel(await domain.connect(PATH), job);
if (role === 'client') process.exit(0);
