/** Interfaces that this process's own `net` and `dgram` are put on. */
import { randomFillSync } from 'node:crypto';
import { pollLoop } from '../../src/arrakis/poll-loop.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { createPipe } from '../../src/device/pipe.ts';
import { monotonicMs, monotonicUs32 } from '../../src/ffi/clock.ts';
import { NetInterface, netTurn } from '../../src/net/index.ts';
import { Attachment } from '../../src/posix/attach.ts';

export interface Interface {
  readonly net: NetInterface;
  readonly attachment: Attachment;
}

/** Two interfaces of this process, joined by a wire in memory. */
export function joinedInterfaces(
  addressA: string,
  addressB: string,
): { a: Interface; b: Interface; close(): void } {
  const ends = createPipe({ ringSize: 1024, doorbells: true });
  const open = (queue: NicQueue, address: string, mac: number): Interface => {
    const config = { address: parseIpv4(address), prefix: 24, gateway: 0 };
    const secret = randomFillSync(new Int32Array(4));
    const net = new NetInterface({ queue, mac, secret, ...config });
    const attachment = new Attachment({
      net,
      turn: netTurn(net, monotonicMs, monotonicUs32),
      queue,
      config,
      nowMs: monotonicMs,
      drive: (turn, timeoutMs) =>
        pollLoop(queue, turn, { timeoutMs, spinUs: 50, yieldIdle: true, ref: false }),
    });
    return { net, attachment };
  };
  const a = open(ends.a, addressA, 0x02_00_00_00_00_0a);
  const b = open(ends.b, addressB, 0x02_00_00_00_00_0b);
  return {
    a,
    b,
    close() {
      a.attachment.close();
      b.attachment.close();
      ends.a.close();
      ends.b.close();
    },
  };
}
