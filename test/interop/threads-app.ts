/**
 * An application on a VNIC of several queue pairs, for threads.test.ts: each thread echoes UDP and remembers which
 * flows it saw. On SIGTERM it prints one JSON line a thread, `{"thread":0,"datagrams":{"<source port>":<count>}}`.
 * A datagram of one byte ends its thread by an exception. The same module is the main thread and the others.
 */
import { isMainThread, parentPort } from 'node:worker_threads';
import {
  connect,
  monotonicMs,
  NetInterface,
  netTurn,
  threadVnic,
} from '../../src/arrakis/index.ts';
import { getAffinity } from '../../src/ffi/process.ts';

const PORT = 7;

async function main(): Promise<void> {
  const domain = await connect({ name: 'threads' });
  const vnic = await domain.openVnic();
  const threads = vnic.startThreads(new URL(import.meta.url), {
    ...(process.argv[2] === undefined ? {} : { cpus: process.argv[2].split(',').map(Number) }),
    data: 'for all',
  });
  threads.on('died', (index, error) => console.log(`thread ${index} died: ${error.message}`));
  threads.on('message', (_index, value) => console.log(JSON.stringify(value)));
  process.once('SIGTERM', () => void threads.stop());
  console.log(`ready on ${vnic.pairs} pairs`);
  await threads.done;
  await domain.close();
}

async function thread(): Promise<void> {
  const vnic = threadVnic();
  const net = new NetInterface(vnic);
  const datagrams: Record<number, number> = {};
  net.udp.bind(PORT, (frame, at, length, _ip, port) => {
    if (length === 1) throw new Error('told to');
    datagrams[port] = (datagrams[port] ?? 0) + 1;
    net.udp.echoInPlace(frame, at, length);
  });
  const { turn, timeoutMs } = netTurn(net, monotonicMs);
  await vnic.poll(turn, { timeoutMs }).done;
  const { index, data, count } = vnic;
  parentPort!.postMessage({ thread: index, count, data, cpus: getAffinity(), datagrams });
  net.close();
  vnic.close();
}

await (isMainThread ? main() : thread());
