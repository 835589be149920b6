/**
 * The client process of `arrakis bench echo`: one source of traffic, three ways onto the wire.
 *
 *   client.js xdp INTERFACE    AF_XDP on an interface of its own namespace (root)
 *   client.js vnic SPEC        a VNIC of its own, by libarrakis
 *   client.js kernel           a kernel UDP socket
 *
 * What to measure comes as one JSON object in ARRAKIS_BENCH; the result goes to standard output as one JSON line.
 */

import { connect, filter } from '../../src/arrakis/index.ts';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { XdpInterface } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { schedYield } from '../../src/ffi/process.ts';
import { summarize } from '../stats.ts';
import { EchoGenerator, type Saturation } from './generator.ts';
import { KernelClient } from './kernel-client.ts';
import { resolveMac } from './resolve.ts';
import { SelfPolled } from './self-polled.ts';

/** What to measure, and whom to ask. Zero `roundTrips` or `saturateMs` leaves that part out. */
export interface ClientJob {
  sourceAddress: string;
  sourcePort: number;
  /** Flows, a power of two, from as many source ports. Default 1. */
  flows?: number;
  /** Null: ask by ARP. */
  destinationMac: string | null;
  destinationAddress: string;
  destinationPort: number;
  roundTrips: number;
  saturateMs: number;
  window: number;
  probeMs: number;
  /** Path of the server's network namespace: poll our interface ourselves (self-polled.ts). Default: by softirq. */
  pollTowards?: string;
}

export interface ClientResult {
  rtt: { p50: number; p99: number; p999: number; count: number; lost: number } | null;
  saturation: Saturation | null;
}

interface Source {
  probe(timeoutMs: number): boolean;
  roundTrips(count: number): { microseconds: Float64Array; lost: number };
  saturate(durationMs: number, window: number): Saturation;
}

function measure(source: Source, job: ClientJob): ClientResult {
  if (!source.probe(job.probeMs)) throw new Error(`no echo within ${job.probeMs} ms`);
  if (job.roundTrips > 0) source.roundTrips(Math.min(2000, job.roundTrips));
  const trips = job.roundTrips > 0 ? source.roundTrips(job.roundTrips) : null;
  const saturation = job.saturateMs > 0 ? source.saturate(job.saturateMs, job.window) : null;
  return {
    rtt: trips && {
      ...summarize(trips.microseconds),
      count: trips.microseconds.length,
      lost: trips.lost,
    },
    saturation,
  };
}

function generator(queue: NicQueue, sourceMac: number, job: ClientJob, relax?: () => void): Source {
  const own = { mac: sourceMac, address: parseIpv4(job.sourceAddress) };
  const destinationMac =
    job.destinationMac === null
      ? resolveMac(queue, own, parseIpv4(job.destinationAddress), job.probeMs)
      : parseMac(job.destinationMac);
  if (destinationMac === null) throw new Error(`nobody answers ARP for ${job.destinationAddress}`);
  const endpoints = {
    sourceMac,
    destinationMac,
    sourceAddress: own.address,
    destinationAddress: parseIpv4(job.destinationAddress),
    destinationPort: job.destinationPort,
  };
  const flows = Array.from({ length: job.flows ?? 1 }, (_, i) => ({
    ...endpoints,
    sourcePort: job.sourcePort + i,
  }));
  return new EchoGenerator(queue, flows, relax);
}

function overXdp(interfaceName: string, job: ClientJob): ClientResult {
  const nic = XdpInterface.open(interfaceName);
  try {
    const flow = (address: string, port: number) => filter.udp().dstHost(address).dstPort(port);
    // A peer that swaps only the MAC addresses (testpmd's macswap) answers with the request's own addresses.
    const filters = [
      ...Array.from({ length: job.flows ?? 1 }, (_, i) =>
        flow(job.sourceAddress, job.sourcePort + i),
      ),
      flow(job.destinationAddress, job.destinationPort),
    ];
    // Few frames: the more there are in turn, the fewer of them are still in a cache when it comes.
    const geometry = { frameSize: 2048, frameCount: 1024, ringSize: 512 } as const;
    const vnic = nic.attachDirect({ name: 'generator', filters, ...geometry });
    try {
      const queue = openAfXdpQueue(vnic.grant, { region: vnic.fds[0], socket: vnic.fds[1] });
      const polled =
        job.pollTowards === undefined
          ? null
          : new SelfPolled(parseIpv4(job.sourceAddress), job.pollTowards);
      try {
        return measure(generator(queue, nic.mac, job, polled?.poll), job);
      } finally {
        polled?.close();
        queue.close();
      }
    } finally {
      vnic.detach();
    }
  } finally {
    nic.close();
  }
}

async function overVnic(spec: string, job: ClientJob): Promise<ClientResult> {
  const domain = await connect();
  try {
    const vnic = await domain.openVnic(spec);
    return measure(generator(vnic.queue, vnic.mac, job, schedYield), job);
  } finally {
    await domain.close();
  }
}

function overKernel(job: ClientJob): ClientResult {
  const client = new KernelClient(parseIpv4(job.destinationAddress), job.destinationPort);
  try {
    return measure(client, job);
  } finally {
    client.close();
  }
}

const [way = '', argument = ''] = process.argv.slice(2);
const job = JSON.parse(process.env.ARRAKIS_BENCH ?? '{}') as ClientJob;
const result =
  way === 'xdp'
    ? overXdp(argument, job)
    : way === 'vnic'
      ? await overVnic(argument, job)
      : overKernel(job);
process.stdout.write(`${JSON.stringify(result)}\n`);
