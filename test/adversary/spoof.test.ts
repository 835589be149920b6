/** What an application may not send as: MAC, address, port, ARP; and what hides them. Each lie is dropped and counted. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { formatIpv4 } from '../../src/base/address.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import {
  honest,
  ipv6Lies,
  type Lie,
  NARROW_PORTS,
  narrowLies,
  type Party,
  wholeLies,
} from './lies.ts';
import type { Actor } from './process.ts';
import { attackerSpec, type Neighbour, SHAPES, SOFTNIC, Stage } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const TIMES = 10;
const WAIT_MS = 20_000;

interface Opened {
  readonly vnic: number;
  readonly mac: number;
  readonly address: number;
}

for (const shape of SHAPES) {
  describe(`lies, ${shape.title}`, { skip }, () => {
    let stage: Stage;
    let neighbour: Neighbour;
    let attacker: Actor;
    let sink: Opened;

    before(async () => {
      stage = await Stage.open();
      neighbour = await stage.neighbour(shape);
      attacker = await stage.attacker();
      sink = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape, 5) });
    });
    after(async () => {
      try {
        await neighbour.assertUnharmed();
        await stage.endAttackers();
      } finally {
        await stage?.close();
      }
    });

    /** Have `vnic` tell every lie, some honest frames between them. */
    async function tell(vnic: Opened, lies: readonly Lie[], good: Uint8Array): Promise<void> {
      const wire = stage.listen();
      const heardBefore = await attacker.act<number>('heard', sink);
      await neighbour.report();
      const expected: Record<string, number> = {};
      for (const [what, reason, bytes] of lies) {
        const frames = [Buffer.from(bytes).toString('hex')];
        await attacker.act('sendFrames', { vnic: vnic.vnic, frames, times: TIMES });
        expected[reason] = (expected[reason] ?? 0) + TIMES;
        const drops = async () => (await stage.counters(vnic.vnic)).drops![reason] ?? 0;
        await until(
          async () => (await drops()) >= expected[reason]!,
          WAIT_MS,
          `${what}: ${reason}`,
        );
      }
      const frames = [Buffer.from(good).toString('hex')];
      await attacker.act('sendFrames', { vnic: vnic.vnic, frames, times: TIMES });
      const heard = () => attacker.act<number>('heard', sink);
      await until(async () => (await heard()) - heardBefore >= TIMES, WAIT_MS, 'honest frames');
      const { drops, txPackets } = await stage.counters(vnic.vnic);
      assert.deepEqual(drops, expected);
      assert.equal(txPackets, TIMES);
      assert.equal(
        await heard(),
        heardBefore + TIMES,
        'nobody but the addressed hears, and no lie',
      );
      assert.deepEqual(wire.close(), [], 'nothing of it is on the wire');
      await neighbour.assertUnharmed();
    }

    const partyOf = ({ mac, address }: Opened): Party => ({ mac, ip: address });
    const victim = (): Party => {
      const { macs, addresses } = neighbour.info;
      return { mac: macs[0]!, ip: addresses[0]! };
    };

    test('a VNIC with a whole address', async () => {
      const vnic = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape, 1) });
      const [me, to] = [partyOf(vnic), partyOf(sink)];
      await tell(vnic, wholeLies(me, victim(), to), honest(me, to));
    });

    test('a VNIC with some ports', async () => {
      const vnic = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape, 2) });
      const range = NARROW_PORTS.join('-');
      const text = `udp dst portrange ${range} and dst host ${formatIpv4(vnic.address)}`;
      const args = { vnic: vnic.vnic, filters: [text] };
      assert.equal(await attacker.act('askFor', { vnic: vnic.vnic, op: 'filter.set', args }), 'ok');
      const [me, to] = [partyOf(vnic), partyOf(sink)];
      await tell(vnic, narrowLies(me, victim(), to), honest(me, to));
    });

    test('filters for what is not its own are refused, to receive by and to send by', async () => {
      const spec = attackerSpec(shape, 3);
      const { vnic, address } = await attacker.act<Opened>('openOwn', { spec });
      const theirs = formatIpv4(neighbour.info.addresses[0]!);
      const refused = async (op: string, more: object): Promise<void> => {
        const code = await attacker.act<string>('askFor', { vnic, op, args: { vnic, ...more } });
        assert.match(code, /^ARK_(NOT_PERMITTED|IN_USE)$/, JSON.stringify(more));
      };
      const { requestsRefused } = await stage.daemonCounters();
      for (const [receive, send] of [
        [`dst host ${theirs}`, `src host ${theirs}`],
        [`udp dst port 4242 and dst host ${theirs}`, `udp src port 4242 and src host ${theirs}`],
        [`dst net ${shape.network}.0/24`, `src net ${shape.network}.0/24`],
        [`dst host ${formatIpv4(address)} or dst host ${theirs}`, 'src net 0.0.0.0/0 or arp'],
      ] as const) {
        await refused('filter.add', { text: receive });
        await refused('filter.set', { filters: [receive] });
        if (send.includes('arp')) continue;
        await refused('filter.add', { direction: 'transmit', text: send });
      }
      assert.equal((await stage.daemonCounters()).requestsRefused! - requestsRefused!, 11);
      await neighbour.assertUnharmed();
    });

    if (shape === SOFTNIC) {
      test('IPv6 as another', async () => {
        const vnic = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape, 6) });
        const [me, to] = [partyOf(vnic), partyOf(sink)];
        await tell(vnic, ipv6Lies(me, victim()), honest(me, to));
      });

      test('the MAC of the neighbour', async () => {
        const vnic = await attacker.act<Opened>('openOwn', { spec: attackerSpec(shape, 4) });
        const lie = honest({ mac: victim().mac, ip: vnic.address }, partyOf(sink));
        const good = honest(partyOf(vnic), partyOf(sink));
        await tell(vnic, [["the neighbour's MAC", 'spoofedMac', lie]], good);
      });
    }
  });
}
