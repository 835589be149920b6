/** The three shapes in which every driver runs the suite: plain, recorded by pcap, behind an idle fault injector. */
import { withFault } from '../../src/device/fault.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { withPcap } from '../../src/device/pcap.ts';

export interface Wrapping {
  readonly name: string;
  wrap(queue: NicQueue): NicQueue;
}

export const WRAPPINGS: readonly Wrapping[] = [
  { name: '', wrap: (queue) => queue },
  {
    name: ' in pcap',
    wrap: (queue) => withPcap(queue, (bytes) => bytes.length, { nowNs: () => 1 }),
  },
  { name: ' in fault', wrap: (queue) => withFault(queue, { random: () => 0.5 }) },
];
