/** `node:net` on the kernel's sockets, which says what is expected, and on ours. */
import { after } from 'node:test';
import { parseIpv4 } from '../../src/base/address.ts';
import { monotonicMs } from '../../src/ffi/clock.ts';
import type { Tcp } from '../../src/net/tcp/api.ts';
import { Attachment, type AttachOptions } from '../../src/posix/attach.ts';
import { netSuite } from './net.suite.ts';

/** An interface without a network: what a program says to itself needs none. */
function lonely(address: string): Attachment {
  const none = () => {
    throw new Error('there is no network');
  };
  let nextPort = 20_000;
  const listen: Tcp['listen'] = ({ port }) => ({
    port: port === 0 ? nextPort++ : port,
    pending: 0,
    close() {},
  });
  const net: AttachOptions['net'] = {
    tcp: { listen, connect: none, connectionCount: 0 },
    udp: { bind: none, close: none, sendBytes: none },
    groups: { join: none, leave: none },
    poll: () => 0,
    flush: () => 0,
    nextTimerMs: Number.POSITIVE_INFINITY,
  };
  return new Attachment({
    net,
    queue: { memory: { u8: new Uint8Array(8) }, free() {} } as unknown as AttachOptions['queue'],
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

netSuite("net on the kernel's loopback", { address: '127.0.0.1', from: '127.0.0.1' });

const self = lonely('10.99.0.1');
after(() => self.close());
netSuite('net, a program to itself', { address: '10.99.0.1' });
