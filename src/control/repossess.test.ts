/** Sockets on a real interface, and processes that do not want to give them back. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect, isolateNetwork, Namespace } from '../../test/support/network.ts';
import { rootMissing } from '../../test/support/privilege.ts';
import { until } from '../../test/support/until.ts';
import { closeFd } from '../ffi/fd.ts';
import { memfdSealed } from '../ffi/memory.ts';
import { openXsk, xskQueueIsFree } from '../ffi/xsk.ts';
import { KEEPER_VARIABLE } from './keeper.ts';
import { type Belongings, repossess, socketInode } from './repossess.ts';

const APP = fileURLToPath(new URL('../../test/support/hold-socket.app.js', import.meta.url));
const FRAME_SIZE = 2048;
const FRAMES = 128;
const WAIT_MS = 10_000;
const GRACE_MS = 100;

describe('repossession', { skip: rootMissing() }, () => {
  let ifIndex = 0;
  let undo: (() => void)[] = [];
  before(() => isolateNetwork());
  afterEach(() => {
    for (const step of undo.reverse()) step();
    undo = [];
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

  async function holder(
    how: 'open' | 'mapped' | 'hidden',
    socket: number,
    options: { uid?: number; env?: NodeJS.ProcessEnv } = {},
  ): Promise<Holder> {
    const child = spawn(process.execPath, [APP, how], {
      ...options,
      stdio: ['ignore', 'pipe', 'inherit', socket],
    });
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

  const quiet = (): void => {};

  test('a socket that is given back in time costs nobody anything', async () => {
    const { socket, belongings } = bound();
    assert.ok(!xskQueueIsFree(ifIndex, 0));
    setTimeout(() => closeFd(socket), 20);
    assert.deepEqual(await repossess(belongings, quiet, WAIT_MS), []);
    await freed();
    // A queue, or an interface, that is not there has no socket.
    assert.ok(xskQueueIsFree(ifIndex, 77) && xskQueueIsFree(999_999, 0));
  });

  test('whoever has it open or mapped is killed, and nobody else', async () => {
    const { socket, belongings } = bound();
    const open = await holder('open', socket, { uid: 65534 });
    const mapped = await holder('mapped', socket);
    const other = bystander();
    closeFd(socket);
    const killed = await repossess(belongings, quiet, GRACE_MS);
    assert.deepEqual(new Set(killed), new Set([open.child.pid, mapped.child.pid]));
    assert.deepEqual([await endOf(open), await endOf(mapped)], ['SIGKILL', 'SIGKILL']);
    await freed();
    assert.equal(other.exitCode ?? other.signalCode, null);
  });

  function bystander(): ChildProcess {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    undo.push(() => child.kill('SIGKILL'));
    return child;
  }

  test('one that hides it in a socket is killed when it takes it out', async () => {
    const { socket, belongings } = bound();
    const hidden = await holder('hidden', socket);
    closeFd(socket);
    const logged: string[] = [];
    const killed = await repossess(belongings, (_, message) => logged.push(message), GRACE_MS);
    assert.deepEqual(killed, []);
    assert.match(logged.join(), /may be hidden/);
    assert.equal(await endOf(hidden), 'SIGKILL');
    await freed();
    await until(() => /took it out|took out/.test(logged.join()), WAIT_MS, 'and that is logged');
  });

  test('the keeper is spared when it is ours, not when somebody says so', async () => {
    const { socket, belongings } = bound();
    const env = { ...process.env, [KEEPER_VARIABLE]: '/run/arrakis' };
    const keeper = await holder('open', socket, { env });
    const liar = await holder('open', socket, { env, uid: 65534 });
    closeFd(socket);
    // It lets go when it is told, which is what the grace is for; here it never does.
    const repossessed = repossess(belongings, quiet, GRACE_MS);
    assert.equal(await endOf(liar), 'SIGKILL');
    assert.equal(keeper.child.exitCode ?? keeper.child.signalCode, null);
    keeper.child.kill('SIGKILL');
    assert.deepEqual(await repossessed, [liar.child.pid]);
  });
});
