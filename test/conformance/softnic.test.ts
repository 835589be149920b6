/** The conformance suite on the software NIC: two VNICs of a real daemon, opened by libarrakis. */
import { LabDaemon } from '../../bench/echo/lab.ts';
import { connect, type Vnic } from '../../src/arrakis/index.ts';
import { socketPath } from '../../src/control/paths.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';
import { WRAPPINGS } from './wrappings.ts';

async function pair(wrap: (queue: NicQueue) => NicQueue): Promise<NicPair> {
  const daemon = await LabDaemon.start(undefined, ['--no-tap']);
  const domain = await connect({ socket: socketPath(daemon.dir) });
  const close = async (): Promise<void> => {
    await domain.close();
    await daemon.close();
  };
  try {
    const open = (ip: string): Promise<Vnic> => domain.openVnic(`soft0,ip=${ip}/24,frames=2048`);
    const a = await open('10.77.0.21');
    const b = await open('10.77.0.22');
    const addresses = { aMac: a.mac, bMac: b.mac, aIp: a.address, bIp: b.address };
    return { a: wrap(a.queue), b: wrap(b.queue), addresses, close };
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
