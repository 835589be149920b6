/** Rates and coalescing are in force again when the software NIC or the daemon was killed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Domain, NO_FRAME, type Vnic } from '../../src/arrakis/index.ts';
import { writeTestFrame } from '../conformance/udp-frame.ts';
import { sleep, until } from '../support/until.ts';
import { softnicPid, TestDaemon } from './daemon.harness.ts';

const WAIT_MS = 10_000;
const FRAMES = 60;

/** Put frames from `vnic` to `to` into its ring: how many fit. */
function send(vnic: Vnic, to: Vnic): number {
  const { queue } = vnic;
  const addresses = { aMac: vnic.mac, bMac: to.mac, aIp: vnic.address, bIp: to.address };
  let sent = 0;
  queue.reclaim(FRAMES);
  for (; sent < FRAMES; sent++) {
    const frame = queue.alloc();
    if (frame === NO_FRAME) break;
    writeTestFrame(queue.memory.u8, frame, 64, addresses, 'a', sent);
    if (queue.txBatch(Uint32Array.of(frame), Uint16Array.of(64), 1) === 1) continue;
    queue.free(frame);
    break;
  }
  queue.kick();
  return sent;
}

const txPackets = async (domain: Domain, vnic: Vnic): Promise<number> => {
  const { vnics } = (await domain.request('stats', {})).reply;
  return Number(vnics.find((entry) => entry.vnic === vnic.id)!.counters.txPackets);
};

/** Ten packets a second leave sixty of them for a while, whatever else happens. */
async function assertHeld(domain: Domain, vnic: Vnic, to: Vnic): Promise<void> {
  const before = await txPackets(domain, vnic);
  assert.equal(send(vnic, to), FRAMES);
  await until(async () => (await txPackets(domain, vnic)) > before, WAIT_MS, 'it sends');
  await sleep(300);
  assert.ok((await txPackets(domain, vnic)) < before + FRAMES / 2);
}

async function rates(domain: Domain): Promise<string[]> {
  const { objects } = (await domain.request('list', {})).reply;
  return objects
    .filter(({ kind, detail }) => kind === 'rate' || (kind === 'doorbell' && detail.usecs !== 0))
    .map(
      ({ kind, detail: d }) => `${kind} ${d.packetsPerSecond ?? d.usecs} ${d.weight ?? d.frames}`,
    );
}

test('a software NIC that was restarted, and a daemon that took over, hold the same rates', async () => {
  let daemon = await TestDaemon.start({ args: ['--no-tap', '--nic-rate', '100M'] });
  try {
    const domain = await daemon.connect();
    const vnic = await domain.openVnic('soft0,pps=1000');
    const to = await domain.openVnic('soft0');
    await vnic.setRate('send', { packetsPerSecond: 10, weight: 1 });
    await to.setCoalescing({ usecs: 70, frames: 3 });
    const set = ['rate 1000 1', 'rate 10 1', 'doorbell 70 3'].sort();
    assert.deepEqual((await rates(domain)).sort(), set);
    await assertHeld(domain, vnic, to);

    let reattached = 0;
    for (const one of [vnic, to]) one.on('reattached', () => reattached++);
    process.kill(await softnicPid(domain), 'SIGKILL');
    await until(() => reattached === 2, WAIT_MS, 'both go on');
    await assertHeld(domain, vnic, to);

    const { dir } = daemon;
    await daemon.signal('SIGKILL');
    daemon = await TestDaemon.start({ dir, args: ['--no-tap', '--nic-rate', '100M'] });
    const other = await daemon.connect();
    await until(async () => (await rates(other)).length === 3, WAIT_MS, 'it took over');
    assert.deepEqual((await rates(other)).sort(), set);
    await vnic.setRate('send', { packetsPerSecond: 1000 });
    assert.equal((await rates(other)).includes('rate 10 1'), false);
    await other.close();
    await domain.close();
  } finally {
    await daemon.close();
  }
});
