/** The contestant without any wall: both ends and the wire between them in one thread. */
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createPipe } from '../../src/device/pipe.ts';
import { cpuTimeNs, threadClock } from '../../src/ffi/clock.ts';
import type { Contestant } from './contest.ts';

export function pipeContestant(): Contestant {
  const { a, b } = createPipe({ ringSize: 256, frameCount: 1024, headroom: 128 });
  return {
    a,
    b,
    forth: {
      sourceMac: parseMac('02:00:0a:4d:00:01'),
      destinationMac: parseMac('02:00:0a:4d:00:02'),
      sourceAddress: parseIpv4('10.77.0.1'),
      destinationAddress: parseIpv4('10.77.0.2'),
      sourcePort: 40_001,
      destinationPort: 7,
    },
    window: 192,
    both: false,
    sendsUnchecked: false,
    cpuNs: () => cpuTimeNs(threadClock(0)),
    setLimit: null,
    counted: null,
    close() {
      a.close();
      b.close();
    },
  };
}
