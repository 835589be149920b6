/**
 * The sending end of `arrakis bench tcp`: so many connections, each written to as fast as it takes bytes.
 *
 *   source.js xdp INTERFACE    our stack on AF_XDP, on an interface of its own namespace (root)
 *   source.js vnic SPEC        our stack on a VNIC of its own
 *
 * The job comes as JSON in ARRAKIS_BENCH; the result goes to standard output as one JSON line.
 */
import {
  connect,
  monotonicMs,
  monotonicUs32,
  type NetInterface,
  netTurn,
  NetInterface as Stack,
  type TcpConnection,
  type TcpHandlers,
} from '../../src/arrakis/index.ts';
import { schedYield } from '../../src/ffi/process.ts';
import { withXdpStack } from '../http/xdp-stack.ts';
import type { BulkJob, BulkResult } from './job.ts';

const CHUNK = Buffer.alloc(256 * 1024, 'bulk data of no meaning ');
const CONNECT_MS = 15_000;
const BITS = 8;

function measure(net: NetInterface, job: BulkJob, relax: () => void): BulkResult {
  const open: TcpConnection[] = [];
  const fill = (connection: TcpConnection): void => {
    while (connection.write(CHUNK, 0, CHUNK.length) === CHUNK.length);
  };
  const handlers: TcpHandlers = {
    onOpen(connection) {
      open.push(connection);
      fill(connection);
    },
    onData() {},
    onDrain: fill,
  };
  const connectAll = (): void => {
    for (let i = 0; i < job.connections; i++) {
      net.tcp.connect({ address: job.destinationAddress, port: job.port, handlers });
    }
  };
  const { turn } = netTurn(net, monotonicMs, monotonicUs32);
  const run = (ms: number, isDone: () => boolean = () => false): void => {
    const end = performance.now() + ms;
    for (let i = 0; ; i++) {
      if (turn() === 0) relax();
      if ((i & 63) === 0 && (performance.now() >= end || isDone())) return;
    }
  };
  // The sink may not be there yet: it refuses, or nobody answers.
  const giveUp = performance.now() + CONNECT_MS;
  while (open.length === 0 && performance.now() < giveUp) {
    connectAll();
    run(1000, () => open.length === job.connections);
  }
  if (open.length === 0) throw new Error(`no connection to ${job.destinationAddress}`);
  run(job.warmupMs);
  const acked = (): number =>
    open.reduce((sum, { info, unacked }) => sum + info.bytesSent - unacked, 0);
  const before = acked();
  const begin = performance.now();
  run(job.durationMs);
  const bytes = acked() - before;
  const seconds = (performance.now() - begin) / 1000;
  const retransmits = open.reduce((sum, { info }) => sum + info.retransmits, 0);
  for (const connection of open) connection.abort();
  return { bytes, gbitPerSecond: (bytes * BITS) / seconds / 1e9, retransmits };
}

async function overVnic(spec: string, job: BulkJob): Promise<BulkResult> {
  const domain = await connect();
  try {
    const vnic = await domain.openVnic(spec, { offload: true });
    const net = new Stack(vnic);
    try {
      return measure(net, job, schedYield);
    } finally {
      net.close();
    }
  } finally {
    await domain.close();
  }
}

const [way = '', argument = ''] = process.argv.slice(2);
const job = JSON.parse(process.env.ARRAKIS_BENCH ?? '{}') as BulkJob;
const result =
  way === 'xdp'
    ? withXdpStack(argument, job, ({ net, relax }) => measure(net, job, relax))
    : await overVnic(argument, job);
process.stdout.write(`${JSON.stringify(result)}\n`);
