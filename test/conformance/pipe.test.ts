/** The conformance suite on pipes, plain and wrapped. */

import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { withDelay } from '../../src/device/delay.ts';
import { withFault } from '../../src/device/fault.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { CaptureTap, withPcap } from '../../src/device/pcap.ts';
import { createPipe } from '../../src/device/pipe.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';

const addresses = {
  aMac: parseMac('02:00:00:00:00:0a'),
  bMac: parseMac('02:00:00:00:00:0b'),
  aIp: parseIpv4('10.0.0.1'),
  bIp: parseIpv4('10.0.0.2'),
};

const options = { ringSize: 64, frameCount: 512, doorbells: true };

async function pipePair(wrap: (queue: NicQueue) => NicQueue, jumbo = false): Promise<NicPair> {
  const ends = createPipe(jumbo ? { ...options, frameSize: 16384, frameLengthMax: 9014 } : options);
  const a = wrap(ends.a);
  const b = wrap(ends.b);
  return {
    a,
    b,
    addresses,
    close: async () => {
      a.close();
      b.close();
    },
  };
}

const nowNs = (): number => 1;
const discard = (bytes: Uint8Array): number => bytes.length;
const random = (): number => 0.5;

nicSuite('pipe', () => pipePair((queue) => queue));
nicSuite('pipe, 9014-byte frames', () => pipePair((queue) => queue, true));
nicSuite('pipe in pcap', () => pipePair((queue) => withPcap(queue, discard, { nowNs })));
nicSuite('pipe in an idle capture tap', () =>
  pipePair((queue) => new CaptureTap(queue, { nowNs })),
);
nicSuite('pipe in fault at probability 0', () => pipePair((queue) => withFault(queue, { random })));
nicSuite(
  'pipe in fault with faults that never come true',
  () => pipePair((queue) => withFault(queue, { random: () => 0.999, drop: 0.5, duplicate: 0.5 })),
  // Accepted frames wait in the wrapper when the ring is full.
  { ringDrainsItself: true },
);
nicSuite('pipe in fault in pcap', () =>
  pipePair((queue) => withPcap(withFault(queue, { random }), discard, { nowNs })),
);
nicSuite(
  'pipe in delay of no time',
  () => pipePair((queue) => withDelay(queue, { nowMs: () => 1, delayMs: 0 })),
  // Accepted frames wait on the link, not in the ring.
  { ringDrainsItself: true },
);
