/**
 * Sending as much as one can: the attacker gets through what its rate allows and no more, and the neighbour's throughput
 * and latency are those of before. `arrakis bench protection` measures that exactly; the bounds here only catch what is
 * broken, because the machine may have other things to do. What is contended for is the device: neighbour and attacker
 * are on different processors, and neither needs all of its own.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { formatIpv4 } from '../../src/base/address.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep } from '../support/until.ts';
import { isLong } from './length.ts';
import { honest, type Party, wholeLies } from './lies.ts';
import type { Actor } from './process.ts';
import { ATTACKER_RATE, attackerSpec, type Neighbour, SHAPES, Stage } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const NIC_CPU = 0;
const NEIGHBOUR_CPU = 1;
const WINDOW = 32;
const ROUNDS = isLong ? 40 : 4;
const SLICES = 25;
const SLICE_MS = 8;
/** Times that of a quiet device: a device that does not hold the flood back is slower by far more. */
const THROUGHPUT_MIN = 0.4;
const LATENCY_MAX = 3;
const LATENCY_SLACK_US = 200;
/** What its rate lets through in a time may be more by the burst after a pause, and by late clocks. */
const RATE_SLACK = 1.2;
const NOBODY = { mac: 0x02_00_00_00_00_63, ip: 0x0a63_6363 };

interface Opened {
  readonly vnic: number;
  readonly mac: number;
  readonly address: number;
}

interface Measured {
  readonly perSecond: number;
  readonly p50Us: number;
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const sum = (counts: Record<string, number>): number =>
  Object.values(counts).reduce((a, b) => a + b, 0);

for (const shape of SHAPES) {
  describe(`floods, ${shape.title}`, { skip }, () => {
    let stage: Stage;
    let neighbour: Neighbour;
    let attacker: Actor;
    let me: Opened;

    before(async () => {
      stage = await Stage.open(['--nic-cpu', String(NIC_CPU)]);
      neighbour = await stage.neighbour(shape);
      attacker = await stage.attacker();
      await neighbour.actor.act('pin', { cpu: NEIGHBOUR_CPU });
      await attacker.act('pin', { cpu: NIC_CPU });
      me = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape) });
    });
    after(async () => {
      try {
        await stage.endAttackers();
      } finally {
        await stage?.close();
      }
    });
    const party = (): Party => ({ mac: me.mac, ip: me.address });
    const victim = (): Party => {
      const { macs, addresses } = neighbour.info;
      return { mac: macs[0]!, ip: addresses[0]! };
    };

    /** All that the attacker had queued is out, or dropped. */
    async function settled(): Promise<void> {
      await attacker.act('stopFlood');
      for (let last = -1, now = 0; now !== last; await sleep(100)) {
        last = now;
        const { txPackets, drops } = await stage.counters(me.vnic);
        now = txPackets! + sum(drops ?? {});
      }
    }

    const measure = (ms: number, window: number): Promise<Measured> =>
      neighbour.actor.act<Measured>('measure', { ms, window });

    /**
     * Throughput and latency of the neighbour, by turns with and without the flood. Other programs only take away: of
     * each the best slice counts.
     */
    async function contest(
      frames: readonly string[],
    ): Promise<[quiet: Measured, flooded: Measured]> {
      const best: [Measured, Measured] = [
        { perSecond: 0, p50Us: Number.POSITIVE_INFINITY },
        { perSecond: 0, p50Us: Number.POSITIVE_INFINITY },
      ];
      for (let round = 0; round < ROUNDS; round++) {
        for (const flooded of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
          if (flooded) await attacker.act('flood', { vnic: me.vnic, frames });
          for (let slice = 0; slice < SLICES; slice++) {
            const { perSecond } = await measure(SLICE_MS, WINDOW);
            const { p50Us } = await measure(SLICE_MS, 1);
            const { perSecond: most, p50Us: least } = best[flooded];
            best[flooded] = {
              perSecond: Math.max(most, perSecond),
              p50Us: p50Us > 0 ? Math.min(least, p50Us) : least,
            };
          }
          if (flooded) await settled();
        }
      }
      return best;
    }

    test('at its rate and past it, and lies, to everybody: the neighbour does not feel it', async () => {
      const elsewhere = { mac: me.mac, ip: me.address };
      const lies = wholeLies(party(), victim(), elsewhere).map(([, , bytes]) => hexOf(bytes));
      const frames = [hexOf(honest(party(), NOBODY)), ...lies];
      await neighbour.report();
      const before = await stage.counters(me.vnic);
      const [quiet, flooded] = await contest(frames);
      const throughput = flooded.perSecond / quiet.perSecond;
      const latency = flooded.p50Us / quiet.p50Us;
      const percent = (ratio: number): string => `${(100 * ratio).toFixed(1)} %`;
      console.log(
        `${shape.title}, flooded beside quiet: ${percent(throughput)} of the round trips, p50 ${percent(latency)}`,
      );
      assert.ok(throughput > THROUGHPUT_MIN, `${throughput}`);
      assert.ok(flooded.p50Us < LATENCY_MAX * quiet.p50Us + LATENCY_SLACK_US, `${latency}`);
      const now = await stage.counters(me.vnic);
      assert.ok(sum(now.drops!) > sum(before.drops ?? {}), 'the lies are counted');
      await neighbour.assertUnharmed();
    });

    test('what gets through in a second is what its rate allows', async () => {
      const frames = [hexOf(honest(party(), NOBODY))];
      const sent = async () => {
        const { txPackets, drops } = await stage.counters(me.vnic);
        return { out: txPackets!, held: drops!.rateExceeded ?? 0 };
      };
      const before = await sent();
      const begin = performance.now();
      await attacker.act('flood', { vnic: me.vnic, frames });
      await sleep(1000);
      const now = await sent();
      const seconds = (performance.now() - begin) / 1000;
      await settled();
      const out = now.out - before.out;
      assert.ok(out <= RATE_SLACK * ATTACKER_RATE.packets * seconds, `${out} in ${seconds} s`);
      assert.ok(out > 1000, `it did flood: ${out}`);
      // The software NIC lets frames wait in the sender's ring; a switch has no place for them.
      if (shape.device !== 'soft0')
        assert.ok(now.held > before.held, 'what was too much is counted');
      await neighbour.assertUnharmed();
    });

    test('at the neighbour itself: its filters keep it away, and count it', async () => {
      const [here, there] = neighbour.info.addresses.map(formatIpv4) as [string, string];
      const only = (to: string, from: string): string[] => [
        `udp dst port 4242 and dst host ${to} and src host ${from}`,
      ];
      await neighbour.actor.act('narrow', { here: only(here, there), there: only(there, here) });
      await neighbour.report();
      const frames = [hexOf(honest(party(), victim()))];
      const missed = async (): Promise<number> => {
        const counters = await Promise.all(
          neighbour.info.vnics.map((vnic) => stage.counters(vnic)),
        );
        return counters.reduce((all, { drops }) => all + (drops?.filterMiss ?? 0), 0);
      };
      const before = await missed();
      const { txPackets } = await stage.counters(me.vnic);
      await attacker.act('flood', { vnic: me.vnic, frames });
      await sleep(1000);
      await settled();
      await neighbour.assertUnharmed();
      const out = (await stage.counters(me.vnic)).txPackets! - txPackets!;
      assert.ok(out > 1000 || shape.device !== 'soft0', `it did flood: ${out}`);
      if (shape.device === 'soft0') assert.equal((await missed()) - before, out);
    });
  });
}
