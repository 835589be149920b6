/** The conformance suite on AF_XDP, both shapes, over a veth pair between two namespaces of this process. */
import { VethLab } from '../../bench/echo/lab.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { rootMissing } from '../support/privilege.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';
import { WRAPPINGS } from './wrappings.ts';

type Shape = 'direct' | 'switched';
const PORT = 7000;
const geometry = { frameSize: 2048, frameCount: 512, ringSize: 64 } as const;

function pair(shape: Shape, wrap: (queue: NicQueue) => NicQueue): NicPair {
  const lab = VethLab.create();
  const opened: (() => void)[] = [() => lab.close()];
  const close = async (): Promise<void> => {
    for (let undo = opened.pop(); undo !== undefined; undo = opened.pop()) undo();
  };
  const attach = (end: typeof lab.server, how: Shape): NicQueue =>
    end.network.run(() => {
      const nic = XdpInterface.open(end.interfaceName);
      opened.push(() => end.network.run(() => nic.close()));
      const filters = [
        { protocol: 'udp' as const, address: end.address, portFirst: PORT, portLast: PORT },
      ];
      const options = { name: end.interfaceName, filters, ...geometry };
      const vnic: XdpVnic =
        how === 'direct' ? nic.attachDirect(options) : nic.attachSwitched(options);
      opened.push(() => end.network.run(() => vnic.detach()));
      const queue = openAfXdpQueue(vnic.grant, { region: vnic.fds[0], socket: vnic.fds[1] });
      opened.push(() => queue.close());
      return queue;
    });
  try {
    const a = wrap(attach(lab.server, shape));
    const b = wrap(attach(lab.client, 'direct'));
    const addresses = {
      aMac: lab.server.mac,
      bMac: lab.client.mac,
      aIp: lab.server.address,
      bIp: lab.client.address,
    };
    return { a, b, addresses, close };
  } catch (error) {
    void close();
    throw error;
  }
}

const skip = rootMissing();
for (const shape of ['direct', 'switched'] as const) {
  for (const { name, wrap } of WRAPPINGS) {
    nicSuite(`af-xdp ${shape}${name}`, async () => pair(shape, wrap), {
      ...(skip === false ? {} : { skip }),
      quietMs: 5,
      ringDrainsItself: true,
    });
  }
}
