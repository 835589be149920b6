/** Our stack on AF_XDP, on an interface of this namespace: the client's end of benchmarks over TCP. Needs root. */
import { randomFillSync } from 'node:crypto';
import { filter, NetInterface } from '../../src/arrakis/index.ts';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { XdpInterface } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { SelfPolled } from '../echo/self-polled.ts';

const PREFIX = 24;
const GEOMETRY = { frameSize: 2048, frameCount: 8192, ringSize: 2048 } as const;

/** Who is where, and how our interface is polled: as `HttpJob` and `BulkJob` say it. */
export interface Ends {
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  readonly destinationMac: string | null;
  readonly port: number;
  readonly pollTowards?: string;
}

export interface XdpStack {
  readonly net: NetInterface;
  /** Its frame memory. */
  readonly u8: Uint8Array;
  /** Call it when a turn found nothing. */
  readonly relax: () => void;
}

/** Run `body` with a stack that speaks TCP to one port of one host; everything is given back afterwards. */
export function withXdpStack<T>(
  interfaceName: string,
  ends: Ends,
  body: (stack: XdpStack) => T,
): T {
  const { sourceAddress, destinationAddress, destinationMac, port, pollTowards } = ends;
  const nic = XdpInterface.open(interfaceName);
  try {
    const filters = [filter.tcp().dstHost(sourceAddress).srcPort(port)];
    const vnic = nic.attachDirect({ name: 'generator', filters, ...GEOMETRY });
    try {
      const queue = openAfXdpQueue(vnic.grant, { region: vnic.fds[0], socket: vnic.fds[1] });
      const address = parseIpv4(sourceAddress);
      const net = new NetInterface({
        queue,
        mac: nic.mac,
        address,
        prefix: PREFIX,
        ownsAddress: false,
        secret: randomFillSync(new Int32Array(4)),
      });
      net.setNeighbour(parseIpv4(destinationAddress), parseMac(destinationMac!));
      const polled = pollTowards === undefined ? null : new SelfPolled(address, pollTowards);
      try {
        const relax = polled === null ? () => {} : polled.poll;
        return body({ net, u8: queue.memory.u8, relax });
      } finally {
        polled?.close();
        net.close();
        queue.close();
      }
    } finally {
      vnic.detach();
    }
  } finally {
    nic.close();
  }
}
