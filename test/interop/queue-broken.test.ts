/**
 * A VNIC of two queue pairs on the software NIC, one of which breaks the protocol: it ends, and its domain is told; the
 * other goes on with its flows. When both are broken, so is the VNIC.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  ControlChannel,
  type Domain,
  openControlSocket,
  parseVnicSpec,
} from '../../src/arrakis/index.ts';
import { openPair, openSession } from '../../src/arrakis/pairs.ts';
import { flowHash, pairOfHash } from '../../src/device/flow-hash.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import type { VirtioPair } from '../../src/drivers/virtio/session.ts';
import { eventfdSignal } from '../../src/ffi/fd.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { udpFrame } from '../support/frames.ts';
import { sleep, until } from '../support/until.ts';
import { receiveAll, sendBytes } from './af-xdp.harness.ts';

const WAIT_MS = 10_000;
const PORT = 7;
/** What was under way has come by then. */
const SETTLE_MS = 100;

let daemon: TestDaemon;
let root: Domain;
before(async () => {
  daemon = await TestDaemon.start();
  root = await daemon.connect();
});
after(async () => {
  await root?.close();
  await daemon?.close();
});

/** The driver of `queue` says that it has offered far more than its ring holds. */
function breakRing(queue: NicQueue, { grant, pair, txKickFd }: VirtioPair): void {
  const { avail } = virtioGeometry(grant).rings[pair]!.tx;
  const { u8 } = queue.memory;
  new DataView(u8.buffer, u8.byteOffset).setUint16(avail + 2, 0x7000, true);
  eventfdSignal(txKickFd);
}

test('a pair that breaks the protocol ends alone, and the VNIC with its last', async () => {
  const events: { name: string; body: Record<string, unknown> }[] = [];
  const channel = new ControlChannel(openControlSocket({ socket: daemon.socket }), {
    onEvent: (name, body) => events.push({ name, body: body as Record<string, unknown> }),
    onClose: () => {},
  });
  await channel.request('hello', { protocol: 1, name: 'liar' });
  const spec = parseVnicSpec('soft0,queues=2');
  const { reply, fds } = await channel.request('vnic.open', { spec });
  const session = openSession(reply, fds);
  const pairs = session.pairs.map((pair) => (pair as { virtio: VirtioPair }).virtio);
  const queues = session.pairs.map(openPair);
  const sender = await root.openVnic('soft0');
  const flowOf = (pair: number): Uint8Array => {
    for (let port = 1000; ; port++) {
      const hash = flowHash(sender.address, reply.address, PORT, port);
      if (pairOfHash(hash, 2) !== pair) continue;
      const from = { mac: sender.mac, ip: sender.address, port: PORT };
      return udpFrame(from, { mac: reply.mac, ip: reply.address, port }, Buffer.from('hello'));
    }
  };
  const frames = [flowOf(0), flowOf(1)];
  const received = [0, 0];
  const receive = (): void =>
    queues.forEach((queue, pair) => {
      received[pair]! += receiveAll(queue).length;
    });
  const arrives = async (pair: number): Promise<void> => {
    const had = received[pair]!;
    await until(() => {
      sendBytes(sender.queue, frames[pair]!);
      receive();
      return received[pair]! > had;
    }, WAIT_MS);
  };
  const counters = async (): Promise<Record<string, unknown>> => {
    const { vnics } = (await root.request('stats', {})).reply;
    return vnics.find(({ vnic }) => vnic === reply.vnic)!.counters;
  };
  await arrives(0);
  await arrives(1);

  breakRing(queues[1]!, pairs[1]!);
  const told = () => events.filter(({ name }) => name === 'vnic.queue-broken');
  await until(() => told().length > 0, WAIT_MS);
  assert.deepEqual(told(), [
    {
      name: 'vnic.queue-broken',
      body: { vnic: reply.vnic, queue: 1, reason: 'indexJump' },
    },
  ]);
  // The other's flows stay with it, and this one's go nowhere.
  await sleep(SETTLE_MS);
  receive();
  const before = received[1]!;
  for (let i = 0; i < 20; i++) sendBytes(sender.queue, frames[1]!);
  await arrives(0);
  await sleep(SETTLE_MS);
  receive();
  assert.equal(received[1], before);
  const counts = await counters();
  assert.deepEqual([counts.state, counts.brokenQueues], ['up', 'queue 1: indexJump']);
  assert.ok(!events.some(({ name }) => name === 'vnic.gone'));

  breakRing(queues[0]!, pairs[0]!);
  await until(() => events.some(({ name }) => name === 'vnic.gone'), WAIT_MS);
  assert.equal(told().length, 1);
  for (const queue of queues) queue.close();
  session.close();
  channel.close();
});
