/** Echo between two stacks joined by a wire in memory, ARP and all. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createPipe } from '../../src/device/pipe.ts';
import { NetInterface, UDP_PAYLOAD_OFFSET } from '../../src/net/index.ts';
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
  });
  const server = new NetInterface({
    queue: b,
    mac: parseMac('02:00:00:00:00:02'),
    address: SERVER_IP,
    prefix: 24,
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
  const idleFrames = [a.framesAvailable, b.framesAvailable];
  const expectAllFrames = (): void => {
    client.close();
    server.close();
    assert.deepEqual([a.framesAvailable, b.framesAvailable], idleFrames);
  };
  return { client, server, echo, received, listen, send, settle, expectAllFrames };
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
