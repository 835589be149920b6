/** The conformance suite on AF_XDP, both shapes, over a veth pair between two namespaces of this process. */

import { VethLab } from '../../bench/echo/lab.ts';
import { formatIpv4, parseIpv4 } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { filter } from '../../src/filter/build.ts';
import { rootMissing } from '../support/privilege.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';
import { peerOnPair } from './udp-frame.ts';
import { WRAPPINGS } from './wrappings.ts';

type Shape = 'direct' | 'switched';
const PORT = 7000;
const geometry = { frameSize: 2048, frameCount: 512, ringSize: 64 } as const;

const SERVER = '10.78.0.1';

/**
 * With `pairs` queue pairs, pair `index`. Direct: on as many queues of the interfaces, at both ends; a frame that is
 * sent on one queue arrives on the same. Switched: by the hash of the flow, with a peer whose flow is on that pair.
 */
function pair(shape: Shape, wrap: (queue: NicQueue) => NicQueue, pairs = 1, index = 0): NicPair {
  const lab = VethLab.create({
    serverAddress: SERVER,
    clientAddress: formatIpv4(peerOnPair(parseIpv4(SERVER), pairs, index)),
    queues: shape === 'direct' ? pairs : 1,
  });
  const opened: (() => void)[] = [() => lab.close()];
  const close = async (): Promise<void> => {
    for (let undo = opened.pop(); undo !== undefined; undo = opened.pop()) undo();
  };
  const attach = (end: typeof lab.server, how: Shape, count: number): NicQueue =>
    end.network.run(() => {
      const nic = XdpInterface.open(end.interfaceName);
      opened.push(() => end.network.run(() => nic.close()));
      const filters = [filter.udp().dstHost(end.address).dstPort(PORT)];
      const options = { name: end.interfaceName, filters, pairs: count, ...geometry };
      const vnic: XdpVnic =
        how === 'direct' ? nic.attachDirect(options) : nic.attachSwitched(options);
      opened.push(() => end.network.run(() => vnic.detach()));
      const own = count === 1 ? 0 : index;
      const fds = { region: vnic.fds[0]!, socket: vnic.fds[1 + own]! };
      const queue = openAfXdpQueue(vnic.grant, fds, own);
      opened.push(() => queue.close());
      return queue;
    });
  try {
    const a = wrap(attach(lab.server, shape, pairs));
    const b = wrap(attach(lab.client, 'direct', shape === 'direct' ? pairs : 1));
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
  for (const index of [0, 1]) {
    nicSuite(`af-xdp ${shape}, pair ${index} of two`, async () => pair(shape, (q) => q, 2, index), {
      ...(skip === false ? {} : { skip }),
      quietMs: 5,
      ringDrainsItself: true,
    });
  }
  for (const { name, wrap } of WRAPPINGS) {
    nicSuite(`af-xdp ${shape}${name}`, async () => pair(shape, wrap), {
      ...(skip === false ? {} : { skip }),
      quietMs: 5,
      ringDrainsItself: true,
    });
  }
}
