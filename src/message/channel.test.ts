/** Channels: requests, streams, their ends, and peers that misbehave. Both ends are driven by hand or by a timer. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { ArrakisError } from '../base/errors.ts';
import { Channel } from './channel.ts';
import { type Codec, jsonCodec, structCodec } from './codec.ts';
import { FRAME, tagOf } from './frame.ts';
import { linkBytes, linkMemory } from './layout.ts';
import { CHANNEL_LIMITS } from './limits.ts';
import { MessageLink, makeBells } from './link.ts';

const CAPACITY = 4096;
// biome-ignore lint/suspicious/noExplicitAny: each test sends what it likes
type Anything = any;
let client: Channel<Anything>;
let server: Channel<Anything>;
let pump: NodeJS.Timeout;

function makePair(codec = jsonCodec<Anything>()): void {
  const bells = makeBells();
  const memory = linkMemory(new SharedArrayBuffer(linkBytes(CAPACITY)));
  const link = (side: 0 | 1) =>
    new MessageLink(memory, { capacity: CAPACITY, side, bells: bells[side] });
  server = new Channel(link(0), codec);
  client = new Channel(link(1), codec);
}

beforeEach(() => {
  makePair();
  pump = setInterval(() => {
    for (const channel of [client, server]) {
      channel.turn();
      channel.check();
    }
  }, 1);
});

afterEach(() => {
  clearInterval(pump);
  client.close();
  server.close();
});

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('answers find their questions, whatever order they come in', async () => {
  server.serve(async ({ n }) => {
    await sleep((n * 7) % 5);
    return { n };
  });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => client.request({ n })));
  assert.deepEqual(
    answers.map((answer) => answer.n),
    Array.from({ length: 200 }, (_, n) => n),
  );
});

test('both sides may ask, and one-way messages keep their order', async () => {
  server.serve((m) => `server ${m}`);
  client.serve((m) => `client ${m}`);
  assert.equal(await client.request('a'), 'server a');
  assert.equal(await server.request('b'), 'client b');
  const got: number[] = [];
  server.on('message', (m) => got.push(m));
  for (let n = 0; n < 2000; n++) await client.send(n);
  await client.request('done');
  assert.deepEqual(
    got,
    Array.from({ length: 2000 }, (_, n) => n),
  );
});

test('what a handler throws arrives; texts of other errors stay at home', async () => {
  server.serve((m) => {
    if (m === 'ours') throw new ArrakisError('ARK_IN_USE', 'it is mine');
    throw new Error('password in stack');
  });
  await assert.rejects(client.request('ours'), { code: 'ARK_IN_USE', message: 'it is mine' });
  await assert.rejects(client.request('other'), {
    code: 'ARK_INTERNAL',
    message: 'the handler failed',
  });
  server.serve(() => undefined);
  await assert.rejects(client.request('undefined'), code('ARK_BAD_ARGUMENT'));
});

test('without a handler a request is refused', async () => {
  await assert.rejects(client.request(1), code('ARK_UNKNOWN_OPERATION'));
});

test('a request times out, its handler hears of it, and the late answer is nobody’s', async () => {
  let cancelled = false;
  server.serve(async (_m, { signal }) => {
    signal.addEventListener('abort', () => {
      cancelled = true;
    });
    await sleep(60);
    return 1;
  });
  await assert.rejects(client.request(0, { timeoutMs: 20 }), code('ARK_TIMEOUT'));
  await sleep(80);
  assert.equal(cancelled, true);
  assert.equal(client.closed, false);
  const controller = new AbortController();
  const asked = client.request(0, { signal: controller.signal });
  controller.abort(new Error('no more'));
  await assert.rejects(asked, /no more/);
  await assert.rejects(client.request(0, { signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('requests in flight fail when the peer closes or dies', async () => {
  server.serve(() => new Promise(() => {}));
  const asked = client.request(1);
  const streamed = client.stream(2).next();
  setTimeout(() => server.close(), 10);
  await assert.rejects(asked, code('ARK_GONE'));
  await assert.rejects(streamed, code('ARK_GONE'));
  await assert.rejects(client.send(1), code('ARK_GONE'));
  await assert.rejects(client.request(1), code('ARK_GONE'));
  await assert.rejects(client.stream(1).next(), code('ARK_GONE'));
});

test('a stream comes in order and is not ahead of its reader by more than the window', async () => {
  let made = 0;
  server.serve(async function* ({ count }) {
    for (let n = 0; n < count; n++) {
      made++;
      yield n;
    }
  });
  let expected = 0;
  for await (const n of client.stream({ count: 500 })) {
    assert.equal(n, expected++);
    assert.ok(made <= expected + CHANNEL_LIMITS.streamWindow + 1, `${made} made, ${expected} read`);
    if (expected % 100 === 0) await sleep(5);
  }
  assert.equal(expected, 500);
});

test('leaving a stream ends the generator that makes it', async () => {
  let ended = false;
  server.serve(async function* () {
    try {
      for (let n = 0; ; n++) yield n;
    } finally {
      ended = true;
    }
  });
  for await (const n of client.stream(null)) if (n === 10) break;
  for (let n = 0; n < 100 && !ended; n++) await sleep(5);
  assert.equal(ended, true);
  assert.equal(client.closed, false);
});

test('a stream that fails half-way gives what came before, then the error', async () => {
  server.serve(async function* () {
    yield 1;
    yield 2;
    throw new ArrakisError('ARK_DEVICE', 'it broke');
  });
  const got: number[] = [];
  await assert.rejects(async () => {
    for await (const n of client.stream(null)) got.push(n);
  }, code('ARK_DEVICE'));
  assert.deepEqual(got, [1, 2]);
});

test('a stream where one answer was asked for, and the other way round', async () => {
  server.serve(async function* () {
    yield 1;
  });
  await assert.rejects(client.request(null), code('ARK_PROTOCOL'));
  server.serve(() => 'one');
  const got = [];
  for await (const item of client.stream(null)) got.push(item);
  assert.deepEqual(got, ['one']);
});

test('a message that is too long, or that JSON cannot say, is refused and harms nobody', async () => {
  server.serve((m) => m);
  await assert.rejects(client.send('x'.repeat(CAPACITY)), code('ARK_LIMIT'));
  await assert.rejects(client.request('x'.repeat(CAPACITY)), code('ARK_LIMIT'));
  await assert.rejects(client.send(undefined), code('ARK_BAD_ARGUMENT'));
  assert.equal(await client.request('ok'), 'ok');
});

test('who does not await its sends is stopped, and what was accepted arrives', async () => {
  clearInterval(pump);
  const results = Array.from({ length: 3000 }, (_, n) =>
    client.send(n).then(
      () => true,
      (error) => code('ARK_LIMIT')(error) && false,
    ),
  );
  const got: number[] = [];
  server.on('message', (m) => got.push(m));
  pump = setInterval(() => {
    server.turn();
    client.turn();
  }, 1);
  const sent = await Promise.all(results);
  await sleep(50);
  const expected = sent.flatMap((ok, n) => (ok ? [n] : []));
  assert.ok(expected.length > CHANNEL_LIMITS.waitingMax && expected.length < 3000);
  assert.deepEqual(got, expected);
});

test('an answer that is too long is an error also when it would have to wait', async () => {
  clearInterval(pump);
  server.serve((m) => 'x'.repeat(m === 'long' ? CAPACITY : 1000));
  const asked = Array.from({ length: 8 }, () => client.request('short'));
  const long = client.request('long', { timeoutMs: 1000 });
  await sleep(1);
  server.turn();
  assert.ok(server.waiting > 0);
  pump = setInterval(() => {
    client.turn();
    server.turn();
  }, 1);
  await assert.rejects(long, code('ARK_LIMIT'));
  await Promise.all(asked);
});

test('a peer that cancels what it asks for does not start any number of handlers', () => {
  clearInterval(pump);
  let atWork = 0;
  server.serve(() => {
    atWork++;
    return new Promise(() => {});
  });
  for (let id = 1; id <= 4 * CHANNEL_LIMITS.requestsMax; id++) {
    const nothing = Buffer.from('null');
    client.link.send(nothing, nothing.length, tagOf(FRAME.request, id));
    client.link.send(nothing, 0, tagOf(FRAME.cancel, id));
    client.link.publish();
    server.turn();
    while (client.link.receive() >= 0);
    client.link.release();
  }
  assert.equal(server.closed, false);
  assert.equal(atWork, CHANNEL_LIMITS.requestsMax);
});

test('a peer that is said to be gone and goes on to send is not listened to for ever', () => {
  clearInterval(pump);
  let got = 0;
  const more = (): void => {
    const text = Buffer.from('1');
    client.link.send(text, text.length, tagOf(FRAME.message, 0));
    client.link.publish();
  };
  server.on('message', () => {
    got++;
    if (got < 1e6) more();
  });
  more();
  server.peerGone('so it is said');
  assert.equal(server.closed, true);
  assert.ok(got > 0 && got <= CAPACITY, `${got}`);
});

test('structs of a fixed layout', async () => {
  client.close();
  server.close();
  const codec = structCodec({ op: 'u8', key: 'u32', value: 'f64', delta: 'i16' });
  assert.equal(codec.bytes, 15);
  makePair(codec as Codec<Anything>);
  server.serve(({ op, key, value, delta }) => ({ op: op + 1, key, value: -value, delta }));
  assert.deepEqual(await client.request({ op: 1, key: 0xffffffff, value: 0.5, delta: -2 }), {
    op: 2,
    key: 0xffffffff,
    value: -0.5,
    delta: -2,
  });
});

test('garbage from a peer closes the channel with a reason', async () => {
  const garbage: [number, Buffer][] = [
    [tagOf(FRAME.message, 0), Buffer.from('{')],
    [tagOf(FRAME.message, 0), Buffer.alloc(0)],
    [tagOf(FRAME.request, 5), Buffer.from([0xff, 0xfe])],
    [tagOf(FRAME.credit, 0), Buffer.from('xy')],
  ];
  for (const [tag, bytes] of garbage) {
    server.link.send(bytes, bytes.length, tag);
    server.link.publish();
    client.turn();
    assert.equal(client.closed, true);
    assert.match(client.link.endReason, /broke the protocol/);
    client.close();
    server.close();
    makePair();
  }
});

test('random frames never throw, hang, or make a channel hold more than its limits', () => {
  clearInterval(pump);
  for (let seed = 1; seed <= 300; seed++) {
    client.close();
    server.close();
    makePair();
    const random = new Random(seed);
    client.serve((m) => (random.oneIn(2) ? m : new Promise(() => {})));
    for (let n = 0; n < 5; n++) client.request(n, { timeoutMs: 0 }).catch(() => {});
    const stream = client.stream(0, { timeoutMs: 0 });
    stream.next().catch(() => {});
    for (let n = 0; n < 300 && !client.closed; n++) {
      const text = random.pick(['1', '{}', 'null', '{"code":7}', '"x"', '', '[', '\u0001\0\0\0']);
      const id = random.oneIn(4) ? random.uint32() & 0xfffffff : random.below(9);
      const bytes = Buffer.from(text);
      server.link.send(bytes, bytes.length, (id << 4) | random.below(random.oneIn(9) ? 16 : 7));
      server.link.publish();
      client.turn();
      assert.ok(client.waiting <= CHANNEL_LIMITS.waitingMax);
    }
  }
});
