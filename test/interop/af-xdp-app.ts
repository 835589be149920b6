/**
 * An application as the control plane would start it: it inherits packet memory and socket as descriptors 3 and 4,
 * gives up root before it touches them, and drives its queue. One JSON line on standard output.
 *
 *   af-xdp-app.js echo GRANT          answers; after a million packets says how many collections it saw meanwhile
 *   af-xdp-app.js generate GRANT      asks, and says how long answers took and how many came per second
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { EchoGenerator } from '../../bench/echo/generator.ts';
import type { AfXdpGrant } from '../../src/drivers/af-xdp/grant.ts';
import { type AfXdpQueue, openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import { setAffinity } from '../../src/ffi/process.ts';
import { probeXsk } from '../../src/ffi/xsk.ts';
import { HERE, Responder, THERE } from './af-xdp.harness.ts';

const NOBODY = 65534;
const WARM_PACKETS = 200_000;
const MEASURED_PACKETS = 1_000_000;
const ECHO_MS_MAX = 60_000;
const TURNS = 5000;
const SLICE_MS = 300;
const SILENT_SLICES_MAX = 5;
const SLICES_MAX = 200;

function dropPrivilege(): void {
  process.setgroups!([]);
  process.setgid!(NOBODY);
  process.setuid!(NOBODY);
}

/** Answer `count` packets without leaving this function. False when the time is over. */
function answerMany(responder: Responder, count: number, deadline: number): boolean {
  const end = responder.answered + count;
  while (responder.answered < end) {
    for (let i = 0; i < TURNS && responder.answered < end; i++) responder.turn();
    if (performance.now() > deadline) return false;
  }
  return true;
}

async function echo(queue: AfXdpQueue, mac: number): Promise<object> {
  const collections: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) collections.push(entry.startTime);
  });
  observer.observe({ entryTypes: ['gc'] });
  const responder = new Responder(queue, mac);
  const deadline = performance.now() + ECHO_MS_MAX;
  const warm = answerMany(responder, WARM_PACKETS, deadline);
  const start = performance.now();
  const complete = warm && answerMany(responder, MEASURED_PACKETS, deadline);
  const end = performance.now();
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  const during = collections.filter((at) => at > start && at < end).length;
  return { uid: process.getuid!(), xsk: probeXsk(), complete, collections: during };
}

/** Measures, then keeps asking for as long as it is answered. */
function generate(queue: AfXdpQueue): object {
  const generator = new EchoGenerator(queue, [
    {
      sourceMac: THERE.mac,
      destinationMac: HERE.mac,
      sourceAddress: THERE.ip,
      destinationAddress: HERE.ip,
      sourcePort: 9999,
      destinationPort: 7,
    },
  ]);
  if (!generator.probe(10_000)) return { error: 'no answer' };
  generator.roundTrips(2000);
  const { microseconds } = generator.roundTrips(10_000);
  const sorted = microseconds.sort();
  const saturated = generator.saturate(2000, 128);
  // Until the echo has had its packets and ended.
  let answered = saturated.answered;
  let silent = answered === 0 ? 1 : 0;
  for (let i = 0; i < SLICES_MAX && silent < SILENT_SLICES_MAX; i++) {
    ({ answered } = generator.saturate(SLICE_MS, 64));
    // One silent slice is a busy machine; several in a row are an echo that has ended.
    silent = answered === 0 ? silent + 1 : 0;
  }
  const p50 = sorted[sorted.length >>> 1];
  return { uid: process.getuid!(), p50, packetsPerSecond: saturated.packetsPerSecond };
}

const [role = '', grantText = ''] = process.argv.slice(2);
setAffinity([role === 'echo' ? 0 : 1]);
dropPrivilege();
const grant = JSON.parse(grantText) as AfXdpGrant;
const queue = openAfXdpQueue(grant, { region: 3, socket: 4 });
closeFd(3);
closeFd(4);
const result = role === 'echo' ? await echo(queue, grant.mac) : generate(queue);
queue.close();
process.stdout.write(`${JSON.stringify(result)}\n`);
