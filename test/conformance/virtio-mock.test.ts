/** The conformance suite on the virtio driver, with the device's end of the rings played in the same process. */
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createRegion, virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import { MockDevice, type MockFeatures, preloadAnswers } from '../../src/drivers/virtio/mock.ts';
import { openVirtioQueue } from '../../src/drivers/virtio/queue.ts';
import { SOCK_STREAM, socketPair } from '../../src/ffi/unix.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';

const sizes = { ringSize: 64, frameSize: 2048, frameCount: 512 };

function open(mac: number, features: MockFeatures) {
  const grant = {
    ...sizes,
    mac,
    mtu: 1500,
    headroom: 64,
    regionBytes: virtioGeometry(sizes).regionBytes,
  };
  const [socket, deviceEnd] = socketPair(SOCK_STREAM);
  preloadAnswers(deviceEnd, features);
  const queue = openVirtioQueue(grant, { region: createRegion(grant), socket });
  return { queue, device: MockDevice.accept(deviceEnd) };
}

async function pair(features: MockFeatures): Promise<NicPair> {
  const addresses = {
    aMac: parseMac('02:00:00:00:00:0a'),
    bMac: parseMac('02:00:00:00:00:0b'),
    aIp: parseIpv4('10.0.0.1'),
    bIp: parseIpv4('10.0.0.2'),
  };
  const a = open(addresses.aMac, features);
  const b = open(addresses.bMac, features);
  return {
    a: a.queue,
    b: b.queue,
    addresses,
    settle: async () => {
      a.device.forward(b.device);
      b.device.forward(a.device);
    },
    close: async () => {
      a.queue.close();
      b.queue.close();
      a.device.close();
      b.device.close();
    },
  };
}

for (const eventIdx of [true, false]) {
  nicSuite(`virtio on a mock device, ${eventIdx ? 'event index' : 'flags'}`, () =>
    pair({ eventIdx, replyAck: eventIdx }),
  );
}
