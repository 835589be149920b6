/** Echo between two stacks joined by a wire in memory, ARP and all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createPipe } from '../../src/device/pipe.ts';
import {
  NetInterface,
  TCP_END,
  type TcpConnection,
  UDP_PAYLOAD_OFFSET,
} from '../../src/net/index.ts';
import { serveEcho } from './echo.ts';

const SERVER_IP = parseIpv4('10.0.0.2');
const PORT = 7;

function start() {
  const { a, b } = createPipe({ frameCount: 1024 });
  const client = new NetInterface({
    queue: a,
    mac: parseMac('02:00:00:00:00:01'),
    address: parseIpv4('10.0.0.1'),
    prefix: 24,
    secret: Int32Array.of(1, 2, 3, 4),
  });
  const server = new NetInterface({
    queue: b,
    mac: parseMac('02:00:00:00:00:02'),
    address: SERVER_IP,
    prefix: 24,
    secret: Int32Array.of(5, 6, 7, 8),
  });
  const echo = serveEcho(server, PORT);
  const received: string[] = [];
  const listen = (port: number): void => {
    client.udp.bind(port, (_frame, at, length, srcIp, srcPort) => {
      const text = Buffer.from(a.memory.u8.subarray(at, at + length)).toString('latin1');
      received.push(`${srcIp === SERVER_IP && srcPort === PORT ? '' : 'stranger '}${text}`);
    });
  };
  const send = (from: number, text: string): void => {
    const frame = client.udp.alloc();
    a.memory.u8.set(Buffer.from(text, 'latin1'), frame + UDP_PAYLOAD_OFFSET);
    client.udp.sendTo(frame, text.length, from, SERVER_IP, PORT);
  };
  /** Until neither has work left; in all at most a thousand turns. */
  const settle = (): void => {
    for (let i = 0; i < 1000; i++) if (client.poll(i) + server.poll(i) === 0) return;
    assert.fail('the stacks do not come to rest');
  };
  let nowMs = 10_000;
  /** Let time pass in steps of a millisecond until `until` holds, for `ms` at most. */
  const run = (ms: number, until: () => boolean): boolean => {
    for (const end = nowMs + ms; nowMs < end && !until(); nowMs++) {
      while (client.poll(nowMs) + server.poll(nowMs) > 0);
    }
    return until();
  };
  const idleFrames = [a.framesAvailable, b.framesAvailable];
  const expectAllFrames = (): void => {
    client.close();
    server.close();
    assert.deepEqual([a.framesAvailable, b.framesAvailable], idleFrames);
  };
  return { client, server, a, echo, received, listen, send, settle, run, expectAllFrames };
}

test('a first datagram finds the server by ARP, and comes back', () => {
  const t = start();
  t.listen(1024);
  t.send(1024, 'hello');
  t.settle();
  assert.deepEqual(t.received, ['hello']);
  assert.equal(t.client.counters.arpRequests, 1);
  assert.equal(t.server.counters.arpReplies, 1);
  t.expectAllFrames();
});

test('ten thousand datagrams of every length come back once each, in order', () => {
  const t = start();
  t.listen(1024);
  t.send(1024, 'first');
  t.settle();
  const sent = ['first'];
  for (let i = 0; i < 10_000; i++) {
    const text = String.fromCharCode(32 + (i % 90)).repeat(i % 1473);
    sent.push(text);
    t.send(1024, text);
    if (i % 50 === 49) t.settle();
  }
  t.settle();
  assert.deepEqual(t.received, sent);
  assert.equal(t.echo.datagrams, 10_001);
  t.expectAllFrames();
});

test('a datagram from the echo port is not answered', () => {
  const t = start();
  t.listen(PORT);
  t.send(PORT, 'echo');
  t.settle();
  assert.deepEqual(t.received, []);
  assert.equal(t.echo.fromEcho, 1);
  t.expectAllFrames();
});

/** A client that sends `total` bytes of a pattern and, unless it is not to, reads what comes back. */
function talk(t: ReturnType<typeof start>, total: number, pausesAt: number) {
  const chunk = new Uint8Array(16_384);
  const state = { sent: 0, received: 0, isRight: true, closed: -1, connection: null as unknown };
  const pump = (connection: TcpConnection): void => {
    while (state.sent < total) {
      const want = Math.min(chunk.length, total - state.sent);
      for (let i = 0; i < want; i++) chunk[i] = (state.sent + i) % 251;
      const took = connection.write(chunk, 0, want);
      state.sent += took;
      if (took < want) return;
    }
    connection.end();
  };
  const connection = t.client.tcp.connect({
    address: '10.0.0.2',
    port: PORT,
    handlers: {
      onOpen: pump,
      onDrain: pump,
      onData: (c, _frame, at, length) => {
        for (let i = 0; i < length; i++) {
          state.isRight &&= t.a.memory.u8[at + i] === (state.received + i) % 251;
        }
        state.received += length;
        if (state.received >= pausesAt && state.received - length < pausesAt) c.pause();
      },
      onClose: (_connection, why) => {
        state.closed = why;
      },
    },
  });
  return { state, connection };
}

test('a megabyte on a connection comes back, and the end with it', () => {
  const t = start();
  const { state } = talk(t, 1_000_000, Number.POSITIVE_INFINITY);
  assert.ok(t.run(20_000, () => state.closed === TCP_END.closed));
  assert.equal(state.received, 1_000_000);
  assert.ok(state.isRight);
  assert.deepEqual([t.echo.connections, t.echo.streamBytes], [1, 1_000_000]);
  t.expectAllFrames();
});

test('a client that does not read is heard no longer, and hears the rest when it reads again', () => {
  const t = start();
  const total = 3_000_000;
  const { state, connection } = talk(t, total, 100_000);
  assert.ok(t.run(20_000, () => state.received >= 100_000));
  t.run(60_000, () => false);
  assert.ok(t.echo.streamBytes < total, 'the echo does not take everything');
  connection.resume();
  t.run(200_000, () => state.closed >= 0);
  assert.deepEqual([state.received, state.isRight, state.closed], [total, true, TCP_END.closed]);
  t.expectAllFrames();
});
