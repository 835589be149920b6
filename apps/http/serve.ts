/** The web server on a VNIC, or on one thread's part of it: stack, server and loop together. */
import {
  monotonicMs,
  monotonicUs32,
  type NetCounters,
  NetInterface,
  netTurn,
  type ThreadVnic,
  type Vnic,
} from '../../src/arrakis/index.ts';
import { serveHttp } from './server.ts';
import type { HttpCounters } from './session.ts';

/** Plain data: it goes to threads. */
export interface HttpSettings {
  readonly root: string;
  readonly port: number;
  readonly idleSeconds: number;
}

/** Serve until `stop`, or until the VNIC goes. */
export function serveOn(
  vnic: Vnic | ThreadVnic,
  settings: HttpSettings,
): { stop(): void; readonly done: Promise<{ http: HttpCounters; net: NetCounters }> } {
  const net = new NetInterface(vnic);
  const { memory } = vnic.queue;
  const server = serveHttp(net, { ...settings, memory, wake: () => loop.wake() });
  const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
  const loop = vnic.poll(turn, { timeoutMs });
  const done = loop.done.then(() => {
    server.close();
    net.close();
    return { http: server.counters, net: net.counters };
  });
  return { stop: () => loop.stop(), done };
}
