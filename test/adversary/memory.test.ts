/**
 * What an application may write into memory that a device reads: rings that lie, buffers outside its region, and both
 * while they change. The device ends who breaks the protocol, and nobody else feels it.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { BREAKING, HARMLESS } from './attacks/virtio.ts';
import { durationMs } from './length.ts';
import type { Actor } from './process.ts';
import { attackerSpec, type Neighbour, SOFTNIC, Stage, SWITCHED } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

/** Rounds of an attack that chance decides. */
const FLIPS_MAX = 10;
const STOPPED = 'the software NIC stopped it: ';

for (const shape of [SOFTNIC, SWITCHED]) {
  describe(`memory, ${shape.title}`, { skip }, () => {
    let stage: Stage;
    let neighbour: Neighbour;
    let attacker: Actor;
    const specs = { spec: attackerSpec(shape, 0), helper: attackerSpec(shape, 1) };

    before(async () => {
      stage = await Stage.open();
      neighbour = await stage.neighbour(shape);
    });
    after(() => stage?.close());
    const begin = async (): Promise<Actor> => {
      attacker = await stage.attacker();
      await neighbour.report();
      return attacker;
    };
    afterEach(async () => {
      await neighbour.assertUnharmed();
      await stage.endAttackers();
    });

    test('nothing of the neighbour is in memory that it can map, and no door is open', async () => {
      await begin();
      const { secret } = neighbour.info;
      const pids = [...stage.daemonPids, neighbour.actor.pid, process.pid];
      const directory = stage.daemon.dir;
      const args = { ...specs, secret, pids, directory };
      const seen = await attacker.act<Record<string, unknown>>('lookAround', args);
      assert.deepEqual(seen.opened, []);
      assert.equal(seen.found, 0);
      assert.ok(Number(seen.bytes) >= 4 << 20, 'its region was searched');
      assert.equal(seen.planted, 1, 'the search finds what is there');
    });

    if (shape === SOFTNIC) {
      for (const ring of ['tx', 'rx'] as const) {
        test(`${ring}: each broken rule ends the VNIC, with its name, and is counted`, async () => {
          await begin();
          const { vnicsGone } = await stage.daemonCounters();
          for (const [attack, { violation }] of Object.entries(BREAKING)) {
            const reason = await attacker.act<string>('breakRing', { ...specs, attack, ring });
            assert.equal(reason, STOPPED + violation, attack);
          }
          const { vnicsGone: now } = await stage.daemonCounters();
          assert.equal(now! - vnicsGone!, Object.keys(BREAKING).length);
        });
      }

      test('what is odd and harms nobody is dropped and counted, and the queue goes on', async () => {
        await begin();
        for (const [attack, { drops }] of Object.entries(HARMLESS)) {
          const { txPackets, chains, ...rest } = await attacker.act<Record<string, number>>(
            'oddRing',
            {
              ...specs,
              attack,
            },
          );
          const dropped = Object.values(drops).reduce((sum, n) => sum + n, 0);
          // Nobody has the destination: a frame that went out is dropped there, and counted so.
          const expected = { ...drops, noDestination: chains! - dropped };
          assert.deepEqual(rest, { drops: expected, state: 'up' }, attack);
          assert.equal(txPackets, chains! - dropped, attack);
        }
      });

      for (const ring of ['tx', 'rx'] as const) {
        test(`${ring}: descriptors that change while the device reads them`, async () => {
          await begin();
          const { vnicsGone } = await stage.daemonCounters();
          const args = { ...specs, ring, ms: durationMs(1500) };
          // Which of two values the device meets is chance: the attack goes on until it was caught once.
          const reasons: Record<string, number> = {};
          let sessions = 0;
          for (let n = 0; n < FLIPS_MAX && (reasons[`${STOPPED}outsideMemory`] ?? 0) === 0; n++) {
            const round = await attacker.act<{
              sessions: number;
              reasons: Record<string, number>;
            }>('flipDescriptors', args);
            sessions += round.sessions;
            for (const [reason, count] of Object.entries(round.reasons)) {
              reasons[reason] = (reasons[reason] ?? 0) + count;
            }
          }
          const { vnicsGone: now } = await stage.daemonCounters();
          assert.ok((reasons[`${STOPPED}outsideMemory`] ?? 0) > 0, JSON.stringify(reasons));
          const stopped = sessions - (reasons['the time was over'] ?? 0);
          const counted = now! - vnicsGone!;
          assert.ok(counted >= stopped && counted <= sessions, `${counted} of ${sessions}`);
        });
      }
    }

    test('frames that change while the device reads them: no lie gets through', async () => {
      await begin();
      const { macs, addresses } = neighbour.info;
      const victim = { mac: macs[0], address: addresses[0] };
      const act = shape === SOFTNIC ? 'flipFrames' : 'flipXdpFrames';
      const seen = await attacker.act<Record<string, number> & { drops: Record<string, number> }>(
        act,
        {
          ...specs,
          victim,
          ms: durationMs(1000),
        },
      );
      const { spoofedMac = 0, spoofedAddress = 0 } = seen.drops;
      assert.ok(spoofedAddress + spoofedMac > 0 && seen.txPackets! > 0, JSON.stringify(seen));
      if (shape === SOFTNIC) {
        assert.ok(seen.heard! > 0);
        assert.equal(seen.lies, 0);
        assert.equal(spoofedMac + spoofedAddress + seen.txPackets!, seen.sent);
      }
    });

    if (shape === SWITCHED) {
      test('the kernel refuses each descriptor that is not in the region, and counts it', async () => {
        await begin();
        const { refused, received, good } = await attacker.act<{
          refused: Record<string, number>;
          received: number[];
          good: number;
        }>('breakXdp', specs);
        for (const [attack, count] of Object.entries(refused)) assert.equal(count, 1, attack);
        assert.deepEqual(received, [good]);
      });
    }
  });
}
