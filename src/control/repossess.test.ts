/** Sockets on a real interface, and processes that do not want to give them back. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect, isolateNetwork, Namespace } from '../../test/support/network.ts';
import { rootMissing } from '../../test/support/privilege.ts';
import { sleep, until } from '../../test/support/until.ts';
import { closeFd, shutdownSocket } from '../ffi/fd.ts';
import { memfdSealed } from '../ffi/memory.ts';
import { setLinkDown, setLinkUp } from '../ffi/netlink/index.ts';
import { openXsk, xskQueueIsFree, xskSend } from '../ffi/xsk.ts';
import { KEEPER_VARIABLE } from './keeper.ts';
import type { Log } from './log.ts';
import { type Belongings, repossess, socketInode } from './repossess.ts';

const APP = fileURLToPath(new URL('../../test/support/hold-socket.app.js', import.meta.url));
const FRAME_SIZE = 2048;
const FRAMES = 128;
const WAIT_MS = 10_000;
const GRACE_MS = 100;
const SCAN_MS = 250;
const NOBODY = 65534;
const OTHER = 65533;

describe('repossession', { skip: rootMissing() }, () => {
  let ifIndex = 0;
  let undo: (() => void)[] = [];
  before(() => isolateNetwork());
  afterEach(() => {
    for (const step of undo.reverse()) step();
    undo = [];
    logged = [];
  });

  /** A socket on queue 0 of an interface of its own. */
  function bound(): { socket: number; belongings: Belongings } {
    const far = new Namespace();
    const link = connect(far, { local: { name: 'rep0' }, remote: { name: 'rep1' } });
    undo.push(
      () => far.close(),
      () => link.remove(),
    );
    ifIndex = link.localIndex;
    const regionBytes = FRAME_SIZE * FRAMES;
    const memfd = memfdSealed('test', regionBytes);
    const geometry = { memfd, regionBytes, frameSize: FRAME_SIZE, ringSize: 64 };
    const socket = openXsk({ ifIndex, queue: 0, ...geometry });
    closeFd(memfd);
    return { socket, belongings: { sockets: [socketInode(socket)], ifIndex, queues: [0] } };
  }

  interface Holder {
    readonly child: ChildProcess;
    output: string;
  }

  type How = 'open' | 'sends' | 'mapped' | 'receives' | 'later' | 'hidden';

  async function holder(
    how: How,
    socket: number,
    options: { uid?: number; env?: NodeJS.ProcessEnv } = {},
  ): Promise<Holder> {
    const stdio = ['ignore', 'pipe', 'inherit', socket] as const;
    const child = spawn(process.execPath, [APP, how], { ...options, stdio: [...stdio] });
    undo.push(() => child.kill('SIGKILL'));
    const one = { child, output: '' };
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      one.output += text;
    });
    await until(() => one.output.includes('ready'), WAIT_MS, 'the holder is ready');
    return one;
  }

  const endOf = async ({ child }: Holder): Promise<string | null> => {
    await until(() => child.exitCode !== null || child.signalCode !== null, WAIT_MS, 'it ends');
    return child.signalCode;
  };

  /** Whoever asks has the queue for a moment. */
  const freed = () => until(() => xskQueueIsFree(ifIndex, 0), WAIT_MS, 'the queue is free');

  const lives = ({ child }: Holder): boolean => (child.exitCode ?? child.signalCode) === null;

  let logged: string[] = [];
  const log: Log = (_, message, fields) => logged.push(`${message} ${JSON.stringify(fields)}`);
  const said = (pattern: RegExp, { child }: Holder): boolean =>
    logged.some((line) => pattern.test(line) && line.includes(`"pid":${child.pid},`));
  const options = { log, graceMs: GRACE_MS };

  test('the kernel has no way to take a bound socket back: that is why processes end', () => {
    const { socket } = bound();
    shutdownSocket(socket);
    assert.ok(!xskQueueIsFree(ifIndex, 0));
    assert.equal(xskSend(socket), 0);
    // Neither does the interface let go of it when it is down, in which case it sends no longer.
    setLinkDown(ifIndex);
    assert.equal(xskSend(socket), -1);
    assert.ok(!xskQueueIsFree(ifIndex, 0));
    setLinkUp(ifIndex);
    assert.equal(xskSend(socket), 0);
    closeFd(socket);
  });

  test('a socket that is given back in time costs nobody anything', async () => {
    const { socket, belongings } = bound();
    assert.ok(!xskQueueIsFree(ifIndex, 0));
    setTimeout(() => closeFd(socket), 20);
    const { killed } = await repossess(belongings, { log, graceMs: WAIT_MS });
    assert.deepEqual(killed, []);
    await freed();
    // A queue, or an interface, that is not there has no socket.
    assert.ok(xskQueueIsFree(ifIndex, 77) && xskQueueIsFree(999_999, 0));
  });

  test('who could send is killed; who was only sent the socket, or receives, is not', async () => {
    const { socket, belongings } = bound();
    const innocent = await holder('open', socket, { uid: NOBODY });
    const receiver = await holder('receives', socket, { uid: NOBODY });
    const mapped = await holder('mapped', socket);
    const sender = await holder('sends', socket, { uid: OTHER });
    const other = bystander();
    closeFd(socket);
    const { killed, back } = await repossess(belongings, options);
    assert.deepEqual(new Set(killed), new Set([sender.child.pid, mapped.child.pid]));
    assert.deepEqual([await endOf(sender), await endOf(mapped)], ['SIGKILL', 'SIGKILL']);
    assert.ok(said(/^killed: it sends on a direct VNIC/, sender));
    assert.ok(said(/is watched/, innocent));
    await sleep(2 * SCAN_MS);
    assert.ok(lives(innocent) && lives(receiver) && !xskQueueIsFree(ifIndex, 0));
    innocent.child.kill('SIGKILL');
    receiver.child.kill('SIGKILL');
    await back;
    assert.equal(other.exitCode ?? other.signalCode, null);
  });

  function bystander(): ChildProcess {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    undo.push(() => child.kill('SIGKILL'));
    return child;
  }

  test('its holder goes first, and need not be able to send; others had time to go with it', async () => {
    const { socket, belongings } = bound();
    const owner = await holder('open', socket, { uid: NOBODY });
    const sender = await holder('sends', socket);
    closeFd(socket);
    const { killed } = await repossess(belongings, { ...options, holder: owner.child.pid! });
    assert.deepEqual(killed, [owner.child.pid, sender.child.pid]);
    assert.ok(said(/^killed: it kept its direct VNIC/, owner));
    await freed();
  });

  test('one that waits to send later is killed when it can, and others of its user with it', async () => {
    const { socket, belongings } = bound();
    const supply = await holder('open', socket, { uid: NOBODY });
    const innocent = await holder('open', socket, { uid: OTHER });
    const later = await holder('later', socket, { uid: NOBODY });
    closeFd(socket);
    const { killed, back } = await repossess(belongings, options);
    assert.deepEqual(killed, []);
    assert.deepEqual([await endOf(later), await endOf(supply)], ['SIGKILL', 'SIGKILL']);
    await sleep(2 * SCAN_MS);
    assert.ok(lives(innocent));
    assert.ok(said(/^killed: its user sends/, supply));
    innocent.child.kill('SIGKILL');
    await back;
  });

  test('one that hides it in a socket is killed when it takes it out and could send', async () => {
    const { socket, belongings } = bound();
    const hidden = await holder('hidden', socket);
    closeFd(socket);
    const { killed } = await repossess(belongings, options);
    assert.deepEqual(killed, []);
    assert.match(logged.join('\n'), /may be hidden/);
    assert.equal(await endOf(hidden), 'SIGKILL');
    await freed();
  });

  test('the watch ends when somebody else has the queue', async () => {
    const { socket, belongings } = bound();
    const innocent = await holder('open', socket);
    closeFd(socket);
    let isOver = false;
    const { back } = await repossess(belongings, { ...options, isOver: () => isOver });
    isOver = true;
    await back;
    assert.ok(lives(innocent));
  });

  test('the keeper is spared when it is ours, not when somebody says so', async () => {
    const { socket, belongings } = bound();
    const env = { ...process.env, [KEEPER_VARIABLE]: '/run/arrakis' };
    const keeper = await holder('sends', socket, { env });
    const liar = await holder('sends', socket, { env, uid: NOBODY });
    closeFd(socket);
    // It lets go when it is told, which is what the grace is for; here it never does.
    const repossessed = repossess(belongings, options);
    assert.equal(await endOf(liar), 'SIGKILL');
    assert.ok(lives(keeper));
    keeper.child.kill('SIGKILL');
    assert.deepEqual((await repossessed).killed, [liar.child.pid]);
  });
});
