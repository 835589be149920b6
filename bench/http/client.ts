/**
 * The client process of `arrakis bench http`:
 *
 *   client.js xdp INTERFACE    our stack on AF_XDP, on an interface of its own namespace (root)
 *   client.js vnic SPEC        our stack on a VNIC of its own
 *
 * What to measure comes as one JSON object in ARRAKIS_BENCH; the result goes to standard output as one JSON line.
 */
import { connect, NetInterface } from '../../src/arrakis/index.ts';
import { schedYield } from '../../src/ffi/process.ts';
import type { HttpJob, HttpResult } from './job.ts';
import { HttpLoad } from './load.ts';
import { withXdpStack } from './xdp-stack.ts';

async function overVnic(spec: string, job: HttpJob): Promise<HttpResult> {
  const domain = await connect();
  try {
    const vnic = await domain.openVnic(spec, { offload: true });
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
const result =
  way === 'xdp'
    ? withXdpStack(argument, job, ({ net, u8, relax }) => new HttpLoad(net, u8, job, relax).run())
    : await overVnic(argument, job);
process.stdout.write(`${JSON.stringify(result)}\n`);
