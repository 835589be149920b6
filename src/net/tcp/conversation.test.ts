/** Whole conversations of two stacks over a wire in memory: every byte arrives, every frame comes back. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PEER } from '../../../test/support/frames.ts';
import { Random } from '../../../test/support/random.ts';
import { End, type PairOptions, TcpPair } from '../../../test/support/tcp-pair.ts';
import { formatIpv4 } from '../../base/address.ts';
import type { ArrakisError } from '../../base/errors.ts';
import { TCP_END, TCP_STATE, type TcpConnection } from './api.ts';

const PORT = 80;

/** A pair with a connection from `a` to a listener of `b`, established. */
function established(options: PairOptions = {}) {
  const pair = new TcpPair(options);
  const server = new End(pair.queueB.memory.u8);
  const client = new End(pair.queueA.memory.u8);
  const listener = pair.b.tcp.listen({
    port: PORT,
    onConnection: (connection) => {
      server.connection = connection;
      return server;
    },
  });
  const connection = pair.a.tcp.connect({
    address: formatIpv4(PEER.ip),
    port: PORT,
    handlers: client,
  });
  pair.run(20_000, () => client.isOpen && server.connection !== null);
  assert.equal(connection.state, TCP_STATE.established);
  assert.equal(server.connection!.state, TCP_STATE.established);
  return { pair, client, server, listener, connection, accepted: server.connection! };
}

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

describe('a conversation', () => {
  test('hello, both ways, and an orderly end', () => {
    const { pair, client, server, connection, accepted } = established();
    assert.equal(connection.write(bytesOf('hello'), 0, 5), 5);
    pair.settle();
    assert.equal(server.text, 'hello');
    accepted.write(bytesOf('goodbye'), 0, 7);
    accepted.end();
    pair.settle();
    assert.equal(client.text, 'goodbye');
    assert.deepEqual(client.events, ['open', 'flushed', 'end']);
    connection.end();
    pair.run(100);
    assert.equal(client.closed, TCP_END.closed);
    assert.equal(server.closed, TCP_END.closed);
    pair.assertNothingLost();
    assert.equal(pair.b.tcp.connectionCount, 1);
    pair.run(61_000);
    assert.equal(pair.a.tcp.connectionCount + pair.b.tcp.connectionCount, 0);
  });
});

describe('more', () => {
  test('a part of a segment waits for what comes at once', () => {
    const { pair, server, connection } = established();
    connection.write(bytesOf('head'), 0, 4, true);
    pair.run(10);
    assert.equal(server.text, '');
    connection.write(bytesOf('body'), 0, 4);
    pair.settle();
    assert.equal(server.text, 'headbody');
    assert.equal(pair.b.counters.rxTcp - 2, 1, 'one segment');
  });

  test('an empty last write says that nothing more comes', () => {
    const { pair, server, connection } = established();
    connection.write(bytesOf('head'), 0, 4, true);
    connection.write(bytesOf(''), 0, 0, true);
    pair.run(10);
    assert.equal(server.text, '');
    connection.write(bytesOf(''), 0, 0);
    pair.run(10);
    assert.equal(server.text, 'head', 'before the timer says so');
  });
});

/** Writes `total` bytes of a pattern as room allows, then ends. */
class Writer {
  at = 0;
  readonly #total: number;
  readonly #chunk = new Uint8Array(4000);

  constructor(total: number) {
    this.#total = total;
  }

  pump(connection: TcpConnection): void {
    while (this.at < this.#total) {
      const want = Math.min(this.#chunk.length, this.#total - this.at);
      for (let i = 0; i < want; i++) this.#chunk[i] = patternAt(this.at + i);
      const took = connection.write(this.#chunk, 0, want);
      this.at += took;
      if (took < want) return;
    }
    connection.end();
  }
}

const patternAt = (i: number): number => (i ^ (i >>> 8) ^ Math.imul(i, 0x9e3779b1)) & 0xff;

function assertPattern(end: End, total: number): void {
  assert.equal(end.bytes, total);
  const all = Buffer.concat(end.chunks);
  for (let i = 0; i < total; i++) {
    if (all[i] !== patternAt(i)) assert.fail(`byte ${i} of ${total} is wrong`);
  }
}

/** Both ends send `total` bytes at once and close; everything arrives, everything comes back. */
function exchange(options: PairOptions, total: number, runMs: number): TcpPair {
  const { pair, client, server, connection, accepted } = established(options);
  const writers = [new Writer(total), new Writer(total)] as const;
  client.onDrain = (c) => writers[0].pump(c);
  server.onDrain = (c) => writers[1].pump(c);
  writers[0].pump(connection);
  writers[1].pump(accepted);
  pair.run(runMs, () => client.closed !== null && server.closed !== null);
  assertPattern(client, total);
  assertPattern(server, total);
  assert.deepEqual([client.closed, server.closed], [TCP_END.closed, TCP_END.closed]);
  pair.run(61_000);
  assert.equal(pair.a.tcp.connectionCount + pair.b.tcp.connectionCount, 0);
  pair.assertNothingLost();
  return pair;
}

describe('many bytes', () => {
  test('a megabyte both ways on a good wire: nothing is sent twice', () => {
    const pair = exchange({}, 1_000_000, 60_000);
    assert.equal(pair.a.counters.retransmits + pair.b.counters.retransmits, 0);
  });

  test('both ways over a bad wire: lost, twice, out of order, damaged, cut short', () => {
    for (let seed = 1; seed <= 8; seed++) {
      const random = new Random(seed);
      const rates = { drop: 0.03, duplicate: 0.03, reorder: 0.1, corrupt: 0.02, truncate: 0.01 };
      const faults = { random: () => random.uint32() / 2 ** 32, ...rates };
      const pair = exchange({ faults }, 200_000, 3_600_000);
      assert.ok(pair.a.counters.retransmits > 0);
    }
  });
});

describe('when there is too little', () => {
  test('a backlog of one: the others get a cookie, and all of them speak', () => {
    const pair = new TcpPair();
    const servers: End[] = [];
    pair.b.tcp.listen({
      port: PORT,
      backlog: 1,
      onConnection: () => {
        const end = new End(pair.queueB.memory.u8);
        servers.push(end);
        return end;
      },
    });
    const clients = Array.from({ length: 50 }, () => {
      const end = new End(pair.queueA.memory.u8);
      pair.a.tcp.connect({ address: formatIpv4(PEER.ip), port: PORT, handlers: end });
      return end;
    });
    pair.run(10_000, () => clients.every(({ isOpen }) => isOpen));
    assert.equal(pair.b.counters.tcpCookiesSent, 49);
    assert.equal(pair.b.counters.tcpCookiesAccepted, 49);
    for (const { connection } of clients) {
      assert.equal(connection!.info.mss, 1448);
      connection!.write(bytesOf('hello'), 0, 5);
      connection!.end();
    }
    pair.run(1000);
    assert.deepEqual(
      servers.map(({ text }) => text),
      clients.map(() => 'hello'),
    );
  });

  test('forty connections on few frames: all bytes arrive, none breaks', () => {
    const pair = new TcpPair({ pipe: { ringSize: 32, frameCount: 128 } });
    const total = 40_000;
    const servers: End[] = [];
    pair.b.tcp.listen({
      port: PORT,
      onConnection: () => {
        const end = new End(pair.queueB.memory.u8);
        end.onEnd = (connection) => connection.end();
        servers.push(end);
        return end;
      },
    });
    const clients = Array.from({ length: 40 }, () => {
      const end = new End(pair.queueA.memory.u8);
      const writer = new Writer(total);
      end.onOpen = (connection) => writer.pump(connection);
      end.onDrain = (connection) => writer.pump(connection);
      pair.a.tcp.connect({ address: formatIpv4(PEER.ip), port: PORT, handlers: end });
      return end;
    });
    pair.run(600_000, () => clients.every(({ closed }) => closed !== null));
    for (const server of servers) assertPattern(server, total);
    assert.deepEqual(
      clients.map(({ closed }) => closed),
      clients.map(() => TCP_END.closed),
    );
    pair.run(61_000);
    pair.assertNothingLost();
  });
});

describe('ends', () => {
  /** Only `a` goes on. */
  const alone = (pair: TcpPair, ms: number): void => {
    for (const end = pair.nowMs + ms; pair.nowMs < end; pair.nowMs += 50) pair.a.poll(pair.nowMs);
  };

  test('keep-alive finds out that nobody is there', () => {
    const { pair, client, connection } = established();
    connection.setKeepAlive(10_000, 1000, 3);
    alone(pair, 9000);
    assert.equal(pair.a.counters.tcpKeepAlives, 0);
    alone(pair, 3000);
    assert.ok(pair.a.counters.tcpKeepAlives > 0 && client.closed === null);
    alone(pair, 3000);
    assert.equal(client.closed, TCP_END.timedOut);
  });

  test('keep-alive of a silent peer that lives goes on for ever', () => {
    const { pair, client, connection } = established();
    connection.setKeepAlive(10_000, 1000, 3);
    pair.run(300_000);
    assert.equal(client.closed, null);
    assert.ok(pair.a.counters.tcpKeepAlives >= 20);
  });

  test('the user timeout is shorter than all retransmissions', () => {
    const { pair, client, connection } = established();
    connection.userTimeoutMs = 3000;
    connection.write(bytesOf('hello'), 0, 5);
    alone(pair, 2900);
    assert.equal(client.closed, null);
    alone(pair, 300);
    assert.equal(client.closed, TCP_END.timedOut);
  });

  test('abort: the peer hears a reset, we hear it in the call', () => {
    const { pair, client, server, connection } = established();
    connection.abort();
    assert.equal(client.closed, TCP_END.aborted);
    connection.abort();
    pair.settle();
    assert.equal(server.closed, TCP_END.reset);
    assert.equal(pair.a.tcp.connectionCount + pair.b.tcp.connectionCount, 0);
    pair.assertNothingLost();
  });

  test('the interface is closed: both hear of it, and every frame is back', () => {
    const { pair, client, server, connection } = established();
    const late = pair.a.tcp.connect({
      address: formatIpv4(PEER.ip),
      port: PORT,
      handlers: client,
    });
    connection.write(new Uint8Array(100_000), 0, 100_000);
    pair.a.close();
    assert.equal(client.closed, TCP_END.gone);
    assert.equal(late.state, TCP_STATE.closed);
    pair.b.poll(pair.nowMs);
    assert.equal(server.closed, TCP_END.reset);
    assert.throws(
      () => pair.a.tcp.listen({ port: 1, onConnection: () => client }),
      (error: ArrakisError) => error.code === 'ARK_GONE',
    );
  });

  test('closed in order while paused: the bytes wait for their owner, then the end', () => {
    const { pair, client, server, connection, accepted } = established();
    accepted.pause();
    connection.write(bytesOf('hello'), 0, 5);
    connection.end();
    pair.settle();
    accepted.end();
    pair.run(100);
    assert.equal(client.closed, TCP_END.closed);
    assert.deepEqual([server.text, server.closed], ['', null]);
    accepted.resume();
    assert.deepEqual([server.text, server.closed], ['hello', TCP_END.closed]);
    assert.deepEqual(server.events.slice(-2), ['end', `close ${TCP_END.closed}`]);
    pair.run(61_000);
    pair.assertNothingLost();
  });

  test('a handler that throws breaks neither its connection nor the others', () => {
    const { pair, server, connection } = established();
    const onData = server.onData.bind(server);
    server.onData = () => {
      throw new Error('handler');
    };
    connection.write(bytesOf('hello'), 0, 5);
    assert.throws(() => pair.settle(), /handler/);
    server.onData = onData;
    connection.write(bytesOf('again'), 0, 5);
    pair.run(1000);
    assert.equal(server.text, 'again');
    connection.abort();
    pair.assertNothingLost();
  });

  test('without a secret there is no TCP', () => {
    const pair = new TcpPair({ a: { secret: null } });
    const refused = (error: ArrakisError) => error.code === 'ARK_BAD_ARGUMENT';
    const end = new End(pair.queueA.memory.u8);
    assert.throws(() => pair.a.tcp.listen({ port: 1, onConnection: () => end }), refused);
    const options = { address: '10.0.0.1', port: 1, handlers: end };
    assert.throws(() => pair.a.tcp.connect(options), refused);
  });
});
