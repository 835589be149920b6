/**
 * The client process of `arrakis bench http`:
 *
 *   client.js xdp INTERFACE    our stack on AF_XDP, on an interface of its own namespace (root)
 *   client.js vnic SPEC        our stack on a VNIC of its own
 *
 * What to measure comes as one JSON object in ARRAKIS_BENCH; the result goes to standard output as one JSON line.
 */
import { randomFillSync } from 'node:crypto';
import { connect, filter, NetInterface } from '../../src/arrakis/index.ts';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { XdpInterface } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { schedYield } from '../../src/ffi/process.ts';
import { SelfPolled } from '../echo/self-polled.ts';
import type { HttpJob, HttpResult } from './job.ts';
import { HttpLoad } from './load.ts';

const PREFIX = 24;
const GEOMETRY = { frameSize: 2048, frameCount: 8192, ringSize: 2048 } as const;

function overXdp(interfaceName: string, job: HttpJob): HttpResult {
  const nic = XdpInterface.open(interfaceName);
  try {
    const filters = [filter.tcp().dstHost(job.sourceAddress).srcPort(job.port)];
    const vnic = nic.attachDirect({ name: 'generator', filters, ...GEOMETRY });
    try {
      const queue = openAfXdpQueue(vnic.grant, { region: vnic.fds[0], socket: vnic.fds[1] });
      const address = parseIpv4(job.sourceAddress);
      const net = new NetInterface({
        queue,
        mac: nic.mac,
        address,
        prefix: PREFIX,
        ownsAddress: false,
        secret: randomFillSync(new Int32Array(4)),
      });
      net.setNeighbour(parseIpv4(job.destinationAddress), parseMac(job.destinationMac!));
      const { pollTowards } = job;
      const polled = pollTowards === undefined ? null : new SelfPolled(address, pollTowards);
      try {
        const relax = polled === null ? () => {} : polled.poll;
        return new HttpLoad(net, queue.memory.u8, job, relax).run();
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

async function overVnic(spec: string, job: HttpJob): Promise<HttpResult> {
  const domain = await connect();
  try {
    const vnic = await domain.openVnic(spec);
    const net = new NetInterface(vnic);
    try {
      return new HttpLoad(net, vnic.queue.memory.u8, job, schedYield).run();
    } finally {
      net.close();
    }
  } finally {
    await domain.close();
  }
}

const [way = '', argument = ''] = process.argv.slice(2);
const job = JSON.parse(process.env.ARRAKIS_BENCH ?? '{}') as HttpJob;
const result = way === 'xdp' ? overXdp(argument, job) : await overVnic(argument, job);
process.stdout.write(`${JSON.stringify(result)}\n`);
