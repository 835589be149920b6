/** Handles that were forged, replayed, inherited, or taken away. They open nothing, and look like those of nobody. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { closeFd } from '../../src/ffi/fd.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { handleFields } from './attacks/handles.ts';
import { honest } from './lies.ts';
import type { Actor } from './process.ts';
import { attackerSpec, NEIGHBOUR, type Neighbour, SHAPES, SOFTNIC, Stage } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const WAIT_MS = 20_000;

interface Forged {
  readonly op: string;
  readonly field: string;
  readonly value: unknown;
  readonly code: string;
}

for (const shape of SHAPES) {
  describe(`handles, ${shape.title}`, { skip }, () => {
    let stage: Stage;
    let neighbour: Neighbour;
    let attacker: Actor;

    before(async () => {
      stage = await Stage.open();
      neighbour = await stage.neighbour(shape);
    });
    after(() => stage?.close());
    const begin = async (): Promise<void> => {
      attacker = await stage.attacker();
      await neighbour.report();
    };
    afterEach(async () => {
      await neighbour.assertUnharmed();
      await stage.endAttackers();
    });

    test('use after revoke: a VNIC is silent, and its device not to be had again', async () => {
      await begin();
      interface Opened {
        readonly vnic: number;
        readonly mac: number;
        readonly address: number;
        readonly domain: number;
      }
      const spec = (n: number) => ({ spec: attackerSpec(shape, n) });
      const [used, sink] = [
        await attacker.act<Opened>('openOwn', spec(0)),
        await attacker.act<Opened>('openOwn', spec(1)),
      ];
      const party = ({ mac, address }: Opened) => ({ mac, ip: address });
      const frames = [Buffer.from(honest(party(used), party(sink))).toString('hex')];
      const heard = () => attacker.act<number>('heard', { vnic: sink.vnic });
      await attacker.act('sendFrames', { vnic: used.vnic, frames, times: 20 });
      await until(async () => (await heard()) === 20, WAIT_MS, 'what it may send arrives');
      const { capabilities } = (await stage.root.request('cap.list', { holder: used.domain }))
        .reply;
      for (const { cap, kind } of capabilities) {
        if (kind === 'device') await stage.root.revoke(cap, { whole: true, graceMs: 0 });
      }
      await attacker.act('flood', { vnic: used.vnic, frames });
      const codes: string[] = [];
      const ask = async (op: string, args: object): Promise<void> => {
        codes.push(await attacker.act('askFor', { vnic: used.vnic, op, args }));
      };
      const { vnic } = used;
      const vnicCap = capabilities.find(({ kind }) => kind === 'vnic')!.cap;
      await ask('vnic.open', { spec: { device: shape.device } });
      await ask('vnic.open', { cap: vnicCap });
      await ask('vnic.close', { vnic });
      await ask('filter.set', { vnic, filters: [] });
      await ask('rate.set', {
        vnic,
        direction: 'send',
        bitsPerSecond: null,
        packetsPerSecond: null,
      });
      await ask('cap.copy', { cap: vnicCap });
      await attacker.act('stopFlood');
      assert.deepEqual(codes, ['ARK_NOT_PERMITTED', ...new Array(5).fill('ARK_NOT_FOUND')]);
      assert.equal(await heard(), 20, 'nothing that it sent afterwards');
    });

    test('use after revoke: a region, an endpoint and a name', async () => {
      await begin();
      const to = await attacker.act<number>('whoAmI');
      const given = await neighbour.actor.act<{ region: number; endpoint: number; name: string }>(
        'share',
        { to },
      );
      const ask = (op: string, args: object) => attacker.act<string>('ask', { op, args });
      // What it was given on purpose it may read: that is a page made for it, not the neighbour's secret.
      assert.equal(await attacker.act('openGiven', { cap: given.region }), '73'.repeat(32));
      assert.equal(await ask('endpoint.connect', { cap: given.endpoint }), 'ok');
      assert.equal(await ask('name.lookup', { path: given.name }), 'ok');
      await neighbour.actor.act('unshare');
      const { requestsRefused } = await stage.daemonCounters();
      const codes = [
        await ask('region.open', { cap: given.region }),
        await ask('cap.derive', { cap: given.region }),
        await ask('endpoint.connect', { cap: given.endpoint }),
        await ask('cap.copy', { cap: given.endpoint }),
        await ask('name.bind', { path: '/app/again', cap: given.region }),
        await ask('name.lookup', { path: given.name }),
      ];
      assert.deepEqual(codes, new Array(6).fill('ARK_NOT_FOUND'));
      assert.equal((await stage.daemonCounters()).requestsRefused! - requestsRefused!, 6);
    });

    if (shape === SOFTNIC) {
      test("forged: another's handle is answered like nobody's, whatever is asked", async () => {
        await begin();
        const { info } = neighbour;
        const others = {
          vnic: [...info.vnics],
          cap: [...info.caps, info.region.cap, info.endpoint.cap],
          endpoint: [info.endpoint.id],
          watch: [info.watch],
          at: [...info.caps],
          connection: [1, 2, 3],
          question: [1, 2, 3],
          filter: [info.vnics[0]! + 1, info.vnics[0]! + 2],
          domain: [info.domain, stage.root.info.domain],
        };
        const { requestsRefused } = await stage.daemonCounters();
        const results = await attacker.act<Forged[]>('forge', { others });
        const refused = (await stage.daemonCounters()).requestsRefused! - requestsRefused!;
        assert.equal(refused, results.length, 'each was counted');
        for (const { op, field } of handleFields()) {
          const mine = results.filter((one) => one.op === op && one.field === field);
          const codeOfNobodys = mine.find(({ value }) => value === 999_999_999)!.code;
          assert.match(codeOfNobodys, /^ARK_NOT_(FOUND|PERMITTED)$/, `${op} ${field}`);
          for (const { value, code } of mine) {
            const text = `${op} ${field}=${JSON.stringify(value)}: ${code}`;
            const isHandle = Number.isSafeInteger(value) && Number(value) >= 0;
            if (!isHandle) assert.equal(code, 'ARK_BAD_MESSAGE', text);
            // 0 is no capability, but the daemon's own domain.
            else if (value !== 0) assert.equal(code, codeOfNobodys, text);
            else assert.match(code, /^ARK_(NOT_FOUND|NOT_PERMITTED|BAD_MESSAGE)$/, text);
          }
        }
      });

      test('replayed: handles of another connection, and of one that has ended', async () => {
        await begin();
        const codes = await attacker.act<string[]>('replay');
        const tries = (codes.length - 1) / 2;
        assert.equal(codes[tries], 'ok', 'the first connection lost nothing');
        codes.splice(tries, 1);
        assert.deepEqual(codes, new Array(2 * tries).fill('ARK_NOT_FOUND'));
      });

      test('connections that number their requests alike get each its own answers', async () => {
        await begin();
        assert.equal(await attacker.act('sameNumbers'), 0);
      });

      test('inherited: the channel of a domain that was prepared for another user', async () => {
        const { reply, fds } = await stage.root.request('domain.prepare', {
          name: 'theirs',
          uid: NEIGHBOUR,
          vnics: [{ device: 'soft0' }],
        });
        try {
          attacker = await stage.attacker({ fd: fds[0]! });
          await neighbour.report();
          const { requestsRefused } = await stage.daemonCounters();
          const codes = await attacker.act<string[]>('useInherited', { times: 5 });
          assert.deepEqual(codes, new Array(20).fill('ARK_NOT_PERMITTED'));
          assert.equal((await stage.daemonCounters()).requestsRefused! - requestsRefused!, 20);
          const { objects } = (await stage.root.request('list', {})).reply;
          const vnic = objects.find(
            ({ kind, owner }) => kind === 'vnic' && owner === reply.domain,
          )!;
          assert.equal(vnic.detail.state, 'prepared', 'nobody has opened it');
        } finally {
          closeFd(fds[0]!);
        }
      });
    }
  });
}
