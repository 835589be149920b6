/** The conformance suite on the software NIC: two VNICs of a real daemon, opened by libarrakis. */
import { LabDaemon } from '../../bench/echo/lab.ts';
import { connect, formatIpv4, parseIpv4, type Vnic } from '../../src/arrakis/index.ts';
import { socketPath } from '../../src/control/paths.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';
import { peerOnPair } from './udp-frame.ts';
import { WRAPPINGS } from './wrappings.ts';

const A = '10.77.0.21';

/** With `queues` pairs at each end, pair `index` of both: the suite's one flow is on the same at both ends. */
async function pair(wrap: (queue: NicQueue) => NicQueue, queues = 1, index = 0): Promise<NicPair> {
  const daemon = await LabDaemon.start(undefined, ['--no-tap']);
  const domain = await connect({ socket: socketPath(daemon.dir) });
  const close = async (): Promise<void> => {
    await domain.close();
    await daemon.close();
  };
  try {
    const open = (ip: string): Promise<Vnic> =>
      domain.openVnic(`soft0,ip=${ip}/24,frames=2048,queues=${queues}`);
    const a = await open(A);
    const b = await open(formatIpv4(peerOnPair(parseIpv4(A), queues, index)));
    const addresses = { aMac: a.mac, bMac: b.mac, aIp: a.address, bIp: b.address };
    return { a: wrap(a.openPair(index)), b: wrap(b.openPair(index)), addresses, close };
  } catch (error) {
    await close();
    throw error;
  }
}

for (const { name, wrap } of WRAPPINGS) {
  nicSuite(`virtio on the software NIC${name}`, () => pair(wrap), {
    quietMs: 5,
    ringDrainsItself: true,
  });
}

for (const index of [0, 1]) {
  nicSuite(`virtio on the software NIC, pair ${index} of two`, () => pair((q) => q, 2, index), {
    quietMs: 5,
    ringDrainsItself: true,
  });
}
