import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { describe, test } from 'node:test';
import { closeFd, writeFd } from '../../src/ffi/fd.ts';
import { linkByName } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { getAffinity, setAffinity } from '../../src/ffi/process.ts';
import { isolateNetwork } from '../../test/support/network.ts';
import { rootMissing } from '../../test/support/privilege.ts';
import { sleep, until } from '../../test/support/until.ts';
import { VethLab } from './lab.ts';
import { pollBySender, pollByTimer } from './own-core.ts';

const skip = rootMissing() || (os.cpus().length < 2 ? 'needs two processors' : false);
if (skip === false) isolateNetwork();

const BURST = 100;
const BURSTS = 200;
const ETHERTYPE_NOBODY = 0x88b5;

/** Frames that the stack has taken, by the processor that did it: column 1 of each line, in hexadecimal. */
function framesByCpu(): number[] {
  const lines = fs.readFileSync('/proc/net/softnet_stat', 'utf8').trim().split('\n');
  return lines.map((line) => Number.parseInt(line.split(' ', 1)[0]!, 16));
}

/** Send frames to the server's end from processor 1: how many each processor handled meanwhile. */
async function handledBy(lab: VethLab): Promise<number[]> {
  const { client } = lab;
  const fd = client.network.run(() => openPacketSocket(linkByName(client.interfaceName)!.index));
  const frame = Buffer.alloc(60);
  frame.fill(0xff, 0, 6);
  frame.writeUInt16BE(ETHERTYPE_NOBODY, 12);
  const before = framesByCpu();
  const affinity = getAffinity();
  try {
    for (let burst = 0; burst < BURSTS; burst++) {
      setAffinity([1]);
      for (let i = 0; i < BURST; i++) writeFd(fd, frame);
      setAffinity(affinity);
      // The ring of a veth holds 256 frames.
      await sleep(2);
    }
  } finally {
    setAffinity(affinity);
    closeFd(fd);
  }
  await sleep(50);
  return framesByCpu().map((count, cpu) => count - before[cpu]!);
}

/** A process whose /sys shows the network namespace that it shares with the server, as in `arrakis demo`. */
const SERVER_HERE = `
  import fs from 'node:fs';
  const { VethLab } = await import('${new URL('./lab.js', import.meta.url).href}');
  const { pollByTimer } = await import('${new URL('./own-core.js', import.meta.url).href}');
  const lab = VethLab.create({ serverHere: true });
  pollByTimer(lab.server, lab.client, 0, 100);
  process.stdout.write(fs.readFileSync('/sys/class/net/srv0/gro_flush_timeout', 'utf8'));
  lab.close();
`;

/** Other tests on this machine add frames but take none away: only lower bounds are certain. */
const MOST = BURST * BURSTS * 0.5;

describe('whose core handles what was sent', { skip }, () => {
  test("the sender's by default, the receiver's when a timer polls, the sender's again after", async () => {
    const lab = VethLab.create();
    try {
      assert.ok((await handledBy(lab))[1]! >= MOST, 'by the sender at first');
      pollByTimer(lab.server, lab.client, 0, 100);
      assert.ok((await handledBy(lab))[0]! >= MOST, 'by the timer, on processor 0');
      pollBySender(lab.server);
      await until(async () => (await handledBy(lab))[1]! >= MOST, 10_000, 'the sender to do it');
    } finally {
      lab.close();
    }
  });

  test('the server may be in our own namespace, whose sysfs is at /sys already', () => {
    const script = 'mount -t sysfs sysfs /sys && exec "$0" --input-type=module -e "$1"';
    const args = ['--net', '--mount', 'sh', '-c', script, process.execPath, SERVER_HERE];
    const result = spawnSync('unshare', args, { encoding: 'utf8', timeout: 60_000 });
    assert.deepEqual([result.stdout, result.stderr], ['100000\n', '']);
  });
});
