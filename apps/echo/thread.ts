/** One thread of the echo: the queue pair that it was given, with a stack of its own. Started by main.ts. */
import { parentPort } from 'node:worker_threads';
import {
  monotonicMs,
  monotonicUs32,
  NetInterface,
  netTurn,
  threadVnic,
} from '../../src/arrakis/index.ts';
import { serveEcho } from './echo.ts';

const vnic = threadVnic();
const { port } = vnic.data as { port: number };
const net = new NetInterface(vnic);
const echo = serveEcho(net, port);
const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
await vnic.poll(turn, { timeoutMs }).done;
parentPort!.postMessage({ echo, net: net.counters });
net.close();
vnic.close();
