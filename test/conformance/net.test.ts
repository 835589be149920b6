/** `node:net`, and what stands on it, on the kernel's sockets, which says what is expected, and on ours. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, test } from 'node:test';
import { parseIpv4 } from '../../src/base/address.ts';
import { monotonicMs } from '../../src/ffi/clock.ts';
import type { Tcp } from '../../src/net/tcp/api.ts';
import { Attachment, type AttachOptions } from '../../src/posix/attach.ts';
import { joinedInterfaces } from '../support/posix.ts';
import { httpSuite } from './http.suite.ts';
import { netSuite } from './net.suite.ts';

const none = () => {
  throw new Error('there is no network');
};
const NO_UDP = { bind: none, close: none, sendBytes: none };
const NO_GROUPS = { join: none, leave: none };

/** An interface without a network: what a program says to itself needs none. */
function lonely(address: string): Attachment {
  let nextPort = 20_000;
  const listen: Tcp['listen'] = ({ port }) => ({
    port: port === 0 ? nextPort++ : port,
    pending: 0,
    close() {},
  });
  const nothing: AttachOptions['net'] = {
    tcp: { listen, connect: none, connectionCount: 0 },
    udp: NO_UDP,
    groups: NO_GROUPS,
  };
  return new Attachment({
    net: nothing,
    turn: { turn: () => 0, timeoutMs: () => -1, flush: () => 0 },
    queue: { memory: { u8: new Uint8Array(8) } } as unknown as AttachOptions['queue'],
    config: { address: parseIpv4(address), prefix: 24, gateway: 0 },
    nowMs: monotonicMs,
    drive: everyTurn,
  });
}

/** Drive `turn` for as long as it finds work, and then when it is woken. */
const everyTurn: AttachOptions['drive'] = (turn) => {
  let isQueued = false;
  const run = (): void => {
    isQueued = false;
    if (turn() > 0) wake();
  };
  const wake = (): void => {
    if (isQueued) return;
    isQueued = true;
    setImmediate(run);
  };
  return { wake, stop() {} };
};

const KERNEL = { address: '127.0.0.1', from: '127.0.0.1' };
netSuite("net on the kernel's loopback", KERNEL);
httpSuite("http on the kernel's loopback", KERNEL);

const self = lonely('10.99.0.1');
netSuite('net, a program to itself', { address: '10.99.0.1' });
httpSuite('http, a program to itself', { address: '10.99.0.1' });

const pair = joinedInterfaces('10.98.0.1', '10.98.0.2');
netSuite('net over a wire', { address: '10.98.0.1', from: '10.98.0.2' });
httpSuite('http over a wire', { address: '10.98.0.1', from: '10.98.0.2' });

test('at localhost a program finds what it listens on at every address, and no more', async () => {
  const everywhere = net.createServer((socket) => socket.end('everywhere')).listen(0);
  await once(everywhere, 'listening');
  const { port } = everywhere.address() as net.AddressInfo;
  for (const host of ['localhost', '127.0.0.1', '10.99.0.1']) {
    const [chunk] = await once(net.connect({ host, port }), 'data');
    assert.equal(String(chunk), 'everywhere', host);
  }
  everywhere.close();
  const there = net.createServer().listen(port, '10.99.0.1');
  await once(there, 'listening');
  const [error] = await once(net.connect({ host: '127.0.0.1', port }), 'error');
  assert.equal(error.code, 'ECONNREFUSED');
  there.close();
});

test('an interface that goes: ENETDOWN', async () => {
  const [here, there] = ['10.96.0.1', '10.96.0.2'];
  const going = joinedInterfaces(here, there);
  try {
    const server = net.createServer((socket) => socket.on('error', () => {})).listen(0, here);
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const client = net.connect({ host: here, port, localAddress: there });
    await once(client, 'connect');
    const failed = once(client, 'error');
    going.b.net.close();
    going.b.attachment.gone();
    assert.equal((await failed)[0].code, 'ENETDOWN');
    server.close();
  } finally {
    going.close();
  }
});

after(() => {
  self.close();
  pair.close();
});
