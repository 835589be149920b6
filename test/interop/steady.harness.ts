/** The echo application under load by the benchmark's own client, a million packets and more, on each driver. */
import assert from 'node:assert/strict';
import type { ClientJob, ClientResult } from '../../bench/echo/client.ts';
import { ECHO_APP, LabDaemon, VethLab } from '../../bench/echo/lab.ts';
import { type Running, runToJson, startNode } from '../../bench/processes.ts';
import { formatIpv4, formatMac } from '../../src/base/address.ts';

export type Driver = 'virtio' | 'af-xdp-direct' | 'af-xdp-switched';
export const DRIVERS: readonly Driver[] = ['virtio', 'af-xdp-direct', 'af-xdp-switched'];
export const PACKETS = 1_000_000;

const CLIENT_SCRIPT = new URL('../../bench/echo/client.js', import.meta.url);
const SERVER = '10.77.0.7';
const CLIENT = '10.77.0.8';
const WARM_UP_MS = 1_500;
const ATTEMPTS = 12;
/** With several threads: enough that each has some. */
const FLOWS = 64;
const TIMEOUT_MS = 120_000;

/** Called with the application warm, before and after the packets that count. */
export interface SteadyHooks {
  begin(server: Running): Promise<void>;
  end(server: Running): Promise<void>;
}

interface Setup {
  server: Running;
  daemon: LabDaemon;
  lab: VethLab | null;
  drive(durationMs: number): Promise<ClientResult>;
}

/**
 * Run the echo application on `driver`, with a thread for each of `queues` pairs, warm it, and send until PACKETS answers
 * came between the two hooks.
 */
export async function steady(
  driver: Driver,
  nodeOptions: readonly string[],
  hooks: SteadyHooks,
  queues = 1,
): Promise<void> {
  const setup = await start(driver, nodeOptions, queues);
  try {
    await setup.drive(WARM_UP_MS);
    await hooks.begin(setup.server);
    let answered = 0;
    for (let attempt = 0; answered < PACKETS; attempt++) {
      assert.ok(attempt < ATTEMPTS, `only ${answered} packets echoed`);
      answered += (await setup.drive(3_000)).saturation!.answered;
    }
    await hooks.end(setup.server);
  } finally {
    await setup.server.stop();
    await setup.daemon.close();
    setup.lab?.close();
  }
}

async function start(
  driver: Driver,
  nodeOptions: readonly string[],
  queues: number,
): Promise<Setup> {
  const lab = driver === 'virtio' ? null : VethLab.create({ serverHere: true });
  const daemon = await LabDaemon.start(undefined, ['--no-tap']);
  const spec =
    driver === 'virtio'
      ? `soft0,ip=${SERVER}/24`
      : `srv0,mode=${driver === 'af-xdp-direct' ? 'direct' : 'switched'},port=udp:7`;
  const program = [process.execPath, ...nodeOptions, ECHO_APP, '--stats'];
  const server = daemon.run([
    '--vnic',
    `${spec},queues=${queues}`,
    '--user',
    'nobody',
    '--',
    ...program,
  ]);
  const job = (saturateMs: number): ClientJob => ({
    sourceAddress: lab === null ? CLIENT : formatIpv4(lab.client.address),
    sourcePort: 40_000,
    flows: queues === 1 ? 1 : FLOWS,
    destinationMac: lab === null ? null : formatMac(lab.server.mac),
    destinationAddress: lab === null ? SERVER : formatIpv4(lab.server.address),
    destinationPort: 7,
    roundTrips: 0,
    saturateMs,
    window: 256,
    probeMs: 20_000,
  });
  const drive = (durationMs: number): Promise<ClientResult> =>
    runToJson(
      startNode(CLIENT_SCRIPT, lab === null ? ['vnic', `soft0,ip=${CLIENT}/24`] : ['xdp', 'cli0'], {
        env: { ...daemon.env, ARRAKIS_BENCH: JSON.stringify(job(durationMs)) },
        ...(lab === null ? {} : { network: lab.client.network }),
      }),
      TIMEOUT_MS,
    );
  return { server, daemon, lab, drive };
}
