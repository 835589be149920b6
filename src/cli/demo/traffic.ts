/** Real traffic of the demo: ping and UDP from the kernel, from wherever a kernel client can reach the VNIC. */
import { KernelClient } from '../../../bench/echo/kernel-client.ts';
import { Pinger } from '../../../bench/echo/ping.ts';
import { summarize } from '../../../bench/stats.ts';
import type { Ipv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { NetworkNamespace } from '../../ffi/network-namespace.ts';

const READY_MS = 10_000;
const PING_TIMEOUT_MS = 200;
const PINGS = 10;
const ECHOES = 1000;

export interface KernelTraffic {
  pingsAnswered: number;
  pingUs: number;
  echoesAnswered: number;
  echoUs: number;
}

/**
 * Ping `address` and have it echo UDP, from a kernel client in `network`. Throws when it does not answer at all, or
 * with the reason of `signal` while it waits for the first answer.
 */
export async function kernelTraffic(
  network: NetworkNamespace | null,
  address: Ipv4,
  port: number,
  signal: AbortSignal,
): Promise<KernelTraffic> {
  const within = <T>(body: () => T): T => (network === null ? body() : network.run(body));
  const udp = within(() => new KernelClient(address, port));
  const pinger = within(() => new Pinger(address, PING_TIMEOUT_MS));
  try {
    if (!(await probe(udp, signal))) {
      throw new ArrakisError('ARK_TIMEOUT', `no echo from the VNIC within ${READY_MS} ms`, {
        hint: 'arrakis doctor',
      });
    }
    const pings = Array.from({ length: PINGS }, () => pinger.ping()).filter((us) => us >= 0);
    const { microseconds } = udp.roundTrips(ECHOES);
    return {
      pingsAnswered: pings.length,
      pingUs: summarize(Float64Array.from(pings)).p50,
      echoesAnswered: microseconds.length,
      echoUs: summarize(microseconds).p50,
    };
  } finally {
    udp.close();
    pinger.close();
  }
}

/** Ask in short steps, so that the output of the children is read meanwhile. */
async function probe(client: KernelClient, signal: AbortSignal): Promise<boolean> {
  const end = performance.now() + READY_MS;
  while (performance.now() < end) {
    signal.throwIfAborted();
    if (client.probe(20)) return true;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return false;
}
