/** Whole conversations of two stacks over a wire in memory: every byte arrives, every frame comes back. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PEER } from '../../../test/support/frames.ts';
import { End, type PairOptions, TcpPair } from '../../../test/support/tcp-pair.ts';
import { formatIpv4 } from '../../base/address.ts';
import { TCP_END, TCP_STATE } from './api.ts';

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
