/** `node:net`, and what stands on it, on the kernel's sockets, which says what is expected, and on ours. */
import { randomFillSync } from 'node:crypto';
import { after } from 'node:test';
import { pollLoop } from '../../src/arrakis/poll-loop.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { createPipe } from '../../src/device/pipe.ts';
import { monotonicMs, monotonicUs32 } from '../../src/ffi/clock.ts';
import { NetInterface, netTurn } from '../../src/net/index.ts';
import type { Tcp } from '../../src/net/tcp/api.ts';
import { Attachment, type AttachOptions } from '../../src/posix/attach.ts';
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
  const net: AttachOptions['net'] = {
    tcp: { listen, connect: none, connectionCount: 0 },
    udp: NO_UDP,
    groups: NO_GROUPS,
  };
  return new Attachment({
    net,
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

/** Two interfaces of this process, joined by a wire in memory. */
function joined(addressA: string, addressB: string): { close(): void } {
  const ends = createPipe({ ringSize: 1024, doorbells: true });
  const open = (queue: NicQueue, address: string, mac: number): Attachment => {
    const config = { address: parseIpv4(address), prefix: 24, gateway: 0 };
    const secret = randomFillSync(new Int32Array(4));
    const net = new NetInterface({ queue, mac, secret, ...config });
    return new Attachment({
      net: { tcp: net.tcp, udp: NO_UDP, groups: NO_GROUPS },
      turn: netTurn(net, monotonicMs, monotonicUs32),
      queue,
      config,
      nowMs: monotonicMs,
      drive: (turn, timeoutMs) =>
        pollLoop(queue, turn, { timeoutMs, spinUs: 50, yieldIdle: true, ref: false }),
    });
  };
  const a = open(ends.a, addressA, 0x02_00_00_00_00_0a);
  const b = open(ends.b, addressB, 0x02_00_00_00_00_0b);
  return {
    close() {
      a.close();
      b.close();
      ends.a.close();
      ends.b.close();
    },
  };
}

const KERNEL = { address: '127.0.0.1', from: '127.0.0.1' };
netSuite("net on the kernel's loopback", KERNEL);
httpSuite("http on the kernel's loopback", KERNEL);

const self = lonely('10.99.0.1');
netSuite('net, a program to itself', { address: '10.99.0.1' });
httpSuite('http, a program to itself', { address: '10.99.0.1' });

const pair = joined('10.98.0.1', '10.98.0.2');
netSuite('net over a wire', { address: '10.98.0.1', from: '10.98.0.2' });
httpSuite('http over a wire', { address: '10.98.0.1', from: '10.98.0.2' });

after(() => {
  self.close();
  pair.close();
});
