/** Whole conversations of two stacks over a wire in memory: every byte arrives, every frame comes back. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PEER } from '../../../test/support/frames.ts';
import { Random } from '../../../test/support/random.ts';
import { End, type PairOptions, TcpPair } from '../../../test/support/tcp-pair.ts';
import { formatIpv4 } from '../../base/address.ts';
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
