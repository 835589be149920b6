/** Taking everything: objects of each kind, connections, the daemon's time. There is a bound, and others have theirs. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { parseIpv4 } from '../../src/base/address.ts';
import { LIMITS } from '../../src/control/limits.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { durationMs } from './length.ts';
import type { Actor } from './process.ts';
import {
  ATTACKER_VNICS,
  attackerIp,
  attackerSpec,
  type Neighbour,
  SHAPES,
  SOFTNIC,
  Stage,
} from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const WAIT_MS = 30_000;

interface Taken {
  readonly made: number;
  readonly codes: string[];
}

/** What the attacker takes over so many connections, and how much that may be. */
const GREED: readonly (readonly [what: string, connections: number, most: number])[] = [
  ['capabilities', 1, LIMITS.capsPerDomainMax],
  ['names', 6, LIMITS.namesPerUidMax],
  ['watches', 2, 2 * LIMITS.watchesPerDomainMax],
  ['regions', 2, 2 * LIMITS.regionsPerDomainMax],
  ['memory', 6, LIMITS.regionBytesPerUidMax / (64 << 20)],
  ['endpoints', 2, 2 * LIMITS.endpointsPerDomainMax],
  ['connections', 4, LIMITS.connectionsPerEndpointUidMax],
  ['vnics', 3, ATTACKER_VNICS],
];

for (const shape of SHAPES) {
  describe(`exhaustion, ${shape.title}`, { skip }, () => {
    let stage: Stage;
    let neighbour: Neighbour;
    let attacker: Actor;

    before(async () => {
      stage = await Stage.open();
      neighbour = await stage.neighbour(shape);
    });
    after(() => stage?.close());
    beforeEach(async () => {
      attacker = await stage.attacker();
      await neighbour.report();
    });
    afterEach(async () => {
      await neighbour.assertUnharmed();
      await stage.endAttackers();
    });

    for (const [what, connections, most] of GREED) {
      if (shape !== SOFTNIC && what !== 'vnics') continue;
      test(`${what}: there is an end to it, and the neighbour has its own`, async () => {
        const { device } = shape;
        const address = parseIpv4(attackerIp(shape));
        const extra = { path: neighbour.info.endpoint.path, device, address };
        const { requestsRefused } = await stage.daemonCounters();
        const args = { what, connections, extra };
        const { made, codes } = await attacker.act<Taken>('take', args);
        assert.equal(made, most);
        assert.deepEqual(codes, new Array(connections).fill('ARK_LIMIT'));
        const refused = (await stage.daemonCounters()).requestsRefused! - requestsRefused!;
        assert.ok(refused >= connections, 'each refusal is counted');
        // Of what the attacker has all that it can, the neighbour gets as before.
        assert.deepEqual(await neighbour.actor.act('prosper', { device }), []);
        const channel = await stage.root.connect(neighbour.info.endpoint.path);
        assert.equal(await channel.request('still there'), 'still there');
        channel.close();
      });
    }

    test('filters: so many of a VNIC and no more', async () => {
      const args = { spec: attackerSpec(shape), ip: attackerIp(shape) };
      const { made, codes } = await attacker.act<Taken>('takeFilters', args);
      assert.ok(made > 0 && made <= LIMITS.filtersPerVnicMax, String(made));
      assert.deepEqual(codes, ['ARK_LIMIT']);
    });

    if (shape !== SOFTNIC) return;

    test('connections that say nothing: so many of a user, and not for long', async () => {
      const { connectionsRefused } = await stage.daemonCounters();
      const count = LIMITS.connectionsPerUidMax + 20;
      await attacker.act('openSilent', { count });
      const refused = async () =>
        (await stage.daemonCounters()).connectionsRefused! - connectionsRefused!;
      // The attacker has one connection beside.
      await until(async () => (await refused()) === 21, WAIT_MS, 'those that are too many');
      const another = await stage.daemon.connect({ name: 'another' });
      await another.close();
      assert.equal(await attacker.act('countSilent'), LIMITS.connectionsPerUidMax - 1);
      const silent = async () => (await attacker.act<number>('countSilent')) === 0;
      await until(silent, LIMITS.helloMsMax + WAIT_MS, 'those that say nothing are closed');
      assert.match(stage.daemon.log, /connection refused: too many/);
    });

    test('answers that nobody reads: the connection is closed', async () => {
      for (const [op, args] of [
        ['list', {}],
        ['cap.list', {}],
        ['nonsense', {}],
        ['name.list', { path: '/app' }],
      ] as const) {
        assert.ok((await attacker.act<number>('neverRead', { op, args })) > 0);
      }
    });

    test('events that nobody reads: they do not pile up', async () => {
      const { rss } = await stage.daemonMemory();
      await attacker.act('watchBlindly');
      const grown = (await stage.daemonMemory()).rss - rss;
      assert.ok(grown < 64 << 20, `the daemon grew by ${grown >> 20} MiB`);
    });

    test('a flood of requests: others are served', async () => {
      const args = { connections: 8, ms: durationMs(1500) };
      assert.ok((await attacker.act<number>('floodRequests', args)) > 100);
      const { controlRequests } = await neighbour.assertUnharmed();
      assert.ok(controlRequests > 5, String(controlRequests));
    });

    test('descriptors: the kernel does not let them through', async () => {
      const codes = await attacker.act('sendDescriptors', { times: 50 });
      assert.deepEqual(codes, new Array(50).fill('EPERM'));
    });

    test('half a message to the device, and answers of it that nobody reads', async () => {
      const half = { spec: attackerSpec(shape, 0), half: true };
      assert.equal(await attacker.act('stallDevice', half), 5);
      const deaf = { spec: attackerSpec(shape, 1), half: false };
      assert.ok((await attacker.act<number>('stallDevice', deaf)) > 10);
      await neighbour.assertUnharmed();
    });
  });
}
