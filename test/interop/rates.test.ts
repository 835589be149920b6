/** Rates and doorbells as applications and users meet them: a real daemon, libarrakis, the command line. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { CLI, ECHO_APP, LabDaemon, VethLab } from '../../bench/echo/lab.ts';
import { connect, type Domain, NO_FRAME, type Vnic } from '../../src/arrakis/index.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { socketPath } from '../../src/control/paths.ts';
import { readable } from '../../src/ffi/watch.ts';
import { writeTestFrame } from '../conformance/udp-frame.ts';
import { LeakCheck } from '../support/leaks.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const TICKS_PER_S = 100;
const REST_S = 4;

let leaks: LeakCheck;
let daemon: LabDaemon;
let domain: Domain;

before(async () => {
  leaks = new LeakCheck();
  daemon = await LabDaemon.start(undefined, ['--no-tap', '--nic-rate', '1G']);
  domain = await connect({ socket: socketPath(daemon.dir) });
});
after(async () => {
  await domain?.close();
  await daemon?.close();
  await leaks.assertNone();
});

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;

interface RateRow {
  vnic: number;
  queue: number | null;
  direction: string;
  bitsPerSecond: number | null;
  packetsPerSecond: number | null;
  weight: number;
  enforcedBy: string | null;
}

function arrakis(...args: string[]): { rates: RateRow[]; doorbells: Record<string, unknown>[] } {
  const env = { ...process.env, ...daemon.env };
  return JSON.parse(
    execFileSync(process.execPath, [CLI.pathname, 'rate', ...args, '--json'], {
      encoding: 'utf8',
      env,
    }),
  );
}

function sendFrames(from: Vnic, to: Vnic, count: number): number {
  const { queue } = from;
  const addresses = { aMac: from.mac, bMac: to.mac, aIp: from.address, bIp: to.address };
  let sent = 0;
  queue.reclaim(256);
  for (; sent < count; sent++) {
    const frame = queue.alloc();
    if (frame === NO_FRAME) break;
    writeTestFrame(queue.memory.u8, frame, 64, addresses, 'a', sent);
    if (queue.txBatch(Uint32Array.of(frame), Uint16Array.of(64), 1) === 0) {
      queue.free(frame);
      break;
    }
  }
  queue.kick();
  return sent;
}

const txPackets = async (vnic: Vnic): Promise<number> => {
  const { reply } = await domain.request('stats', {});
  return Number(reply.vnics.find((entry) => entry.vnic === vnic.id)!.counters.txPackets);
};

describe('rates', () => {
  test('a spec limits both directions from the first frame on', async () => {
    const a = await domain.openVnic('soft0,name=slow,pps=50,rate=1M,weight=3');
    const b = await domain.openVnic('soft0');
    const rows = arrakis('ls').rates.filter((row) => row.vnic === a.id);
    assert.deepEqual(
      rows.map(({ direction, bitsPerSecond, packetsPerSecond, weight, enforcedBy }) => [
        direction,
        bitsPerSecond,
        packetsPerSecond,
        weight,
        enforcedBy,
      ]),
      [
        ['send', 1_000_000, 50, 3, 'software NIC'],
        ['receive', 1_000_000, 50, 1, 'software NIC'],
      ],
    );
    const env = { ...process.env, ...daemon.env };
    const listed = execFileSync(process.execPath, [CLI.pathname, 'ls'], { encoding: 'utf8', env });
    assert.match(listed, /send 1M bit\/s, 50 packets\/s, weight 3 \(software NIC\)/);
    const begin = performance.now();
    assert.equal(sendFrames(a, b, 40), 40);
    await until(async () => (await txPackets(a)) === 40);
    assert.ok(performance.now() - begin > 700, 'forty frames at fifty a second');
    await a.close();
    await b.close();
    assert.equal(arrakis('ls').rates.length, 0);
  });

  test('set by the application and by the command line, while frames wait', async () => {
    const a = await domain.openVnic('soft0,name=tenant');
    const b = await domain.openVnic('soft0');
    assert.equal(await a.setRate('send', { packetsPerSecond: 1 }), 'software NIC');
    assert.equal(sendFrames(a, b, 100), 100);
    await sleep(100);
    assert.ok((await txPackets(a)) < 3);
    const set = arrakis('set', 'tenant', '--pps', 'none', '--direction', 'send');
    assert.equal(set.rates[0]!.packetsPerSecond, null);
    await until(async () => (await txPackets(a)) === 100);
    const both = arrakis('set', 'tenant', '--rate', '100M', '--weight', '5').rates;
    assert.deepEqual(
      both.map((row) => [row.direction, row.bitsPerSecond, row.weight]),
      [
        ['send', 100_000_000, 5],
        ['receive', 100_000_000, 1],
      ],
    );
    await a.setCoalescing({ usecs: 50, frames: 4 });
    assert.deepEqual(arrakis('ls').doorbells, [
      { vnic: a.id, name: 'tenant', pair: 0, usecs: 50, frames: 4 },
    ]);
    assert.deepEqual(arrakis('coalesce', 'tenant', '--usecs', '0').doorbells, []);
    await a.close();
    await b.close();
  });

  test('one queue of several', async () => {
    const vnic = await domain.openVnic('soft0,queues=2');
    await vnic.setRate('send', { queue: 1, packetsPerSecond: 10, weight: 4 });
    const row = arrakis('ls').rates.find((r) => r.vnic === vnic.id && r.queue === 1)!;
    assert.deepEqual([row.direction, row.packetsPerSecond, row.weight], ['send', 10, 4]);
    await assert.rejects(vnic.setRate('send', { queue: 2 }), code('ARK_BAD_ARGUMENT'));
    await assert.rejects(vnic.setCoalescing({ queue: 2, usecs: 1 }), code('ARK_BAD_ARGUMENT'));
    await vnic.close();
  });

  test('what is no rate is refused, with what to do', async () => {
    const vnic = await domain.openVnic('soft0,name=strict');
    for (const [rate, expected] of [
      [{ bitsPerSecond: 0 }, 'ARK_BAD_MESSAGE'],
      [{ bitsPerSecond: -1e6 }, 'ARK_BAD_MESSAGE'],
      [{ packetsPerSecond: Number.NaN, bitsPerSecond: 1.5 }, 'ARK_BAD_MESSAGE'],
      [{ weight: 0 }, 'ARK_BAD_MESSAGE'],
      [{ bitsPerSecond: 2e9 }, 'ARK_BAD_ARGUMENT'],
    ] as const) {
      await assert.rejects(vnic.setRate('send', rate), code(expected), JSON.stringify(rate));
    }
    await assert.rejects(vnic.setRate('receive', { weight: 2 }), code('ARK_BAD_ARGUMENT'));
    await assert.rejects(domain.openVnic('soft0,rate=2G'), /its link has 1G|soft0 has no 2G/);
    const env = { ...process.env, ...daemon.env };
    for (const [args, status] of [
      [['set', 'strict'], 2],
      [['set', 'strict', '--rate', '0'], 1],
      [['set', 'strict', '--rate', '2G'], 1],
      [['set', 'nobody', '--rate', '1M'], 1],
      [['set', 'strict', '--weight', '0'], 2],
      [['set', 'strict', '--rate', '1M', '--direction', 'up'], 2],
    ] as const) {
      const done = spawnSync(process.execPath, [CLI.pathname, 'rate', ...args], {
        encoding: 'utf8',
        env,
      });
      assert.equal(done.status, status, `${args.join(' ')}: ${done.stdout}${done.stderr}`);
      assert.match(done.stderr, /→/, 'what to do');
    }
    assert.equal(arrakis('ls').rates.find((row) => row.direction === 'send')!.enforcedBy, null);
    await vnic.close();
  });
});

describe('at rest', () => {
  /** User and system time of `pid`, in ticks. */
  const ticks = (pid: number): number => {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };

  /** None of `pids` takes more than a hundredth of a processor. */
  async function assertAtRest(pids: readonly number[]): Promise<void> {
    // Applications sleep in Node's event loop, on their doorbells; their start is over.
    await sleep(1000);
    const before = pids.map(ticks);
    await sleep(REST_S * 1000);
    pids.forEach((pid, i) => {
      const share = (ticks(pid) - before[i]!) / (TICKS_PER_S * REST_S);
      const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      assert.ok(share <= 0.01, `${share * 100} % of a processor: ${command}`);
    });
  }

  test('the daemon, the software NIC and an application on it', async () => {
    const app = daemon.run(['--vnic', 'soft0,ip=10.77.0.9/24', '--', ECHO_APP]);
    const other = await domain.openVnic('soft0');
    try {
      await until(() => /10\.77\.0\.9/.test(app.output), 10_000, 'the application is up');
      const { reply } = await domain.request('device.list', {});
      const nic = reply.devices.find((device) => device.name === 'soft0')!.pid;
      await assertAtRest([domain.info.pid, nic, ...descendants(app.child.pid!)]);
      assert.equal(await readable(other.queue.doorbellFd, 0), false);
    } finally {
      await app.stop();
      await other.close();
    }
  });

  test('an application on AF_XDP, switched', { skip: rootMissing() }, async () => {
    const lab = VethLab.create();
    const xdp = await LabDaemon.start(lab.server.network, ['--no-tap']);
    const app = xdp.run(['--vnic', `${lab.server.interfaceName},port=udp:7`, '--', ECHO_APP]);
    try {
      await until(() => /udp|echo/i.test(app.output), 10_000, 'the application is up');
      await assertAtRest(descendants(app.child.pid!));
    } finally {
      await app.stop();
      await xdp.close();
      lab.close();
    }
  });
});

/** `pid` and all below it. */
function descendants(pid: number): number[] {
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return [
    pid,
    ...children
      .split(' ')
      .filter((text) => text !== '')
      .flatMap((child) => descendants(Number(child))),
  ];
}
