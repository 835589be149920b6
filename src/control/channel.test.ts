import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeAll, closeFd, eventfd, openFds } from '../ffi/fd.ts';
import {
  receiveMessage,
  SCM_MAX_FD,
  SOCK_SEQPACKET,
  sendMessage,
  socketPair,
} from '../ffi/unix.ts';
import { MessageChannel } from './channel.ts';
import { LIMITS } from './limits.ts';

interface Seen {
  texts: string[];
  fds: number[];
  oversized: number;
  closed: string[];
}

function channel(fd: number): { channel: MessageChannel; seen: Seen } {
  const seen: Seen = { texts: [], fds: [], oversized: 0, closed: [] };
  const opened = new MessageChannel(fd, {
    onMessage: (text, fds) => {
      seen.texts.push(text);
      seen.fds.push(...fds);
    },
    onOversized: () => {
      seen.oversized++;
    },
    onClose: (reason) => seen.closed.push(reason),
  });
  return { channel: opened, seen };
}

async function until(predicate: () => boolean, timeoutMs = 8000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!predicate()) {
    assert.ok(performance.now() < end, `not in time: ${predicate}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test('messages keep their bounds and their descriptors', async () => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const left = channel(a);
  const right = channel(b);
  const bell = eventfd();
  left.channel.send({ n: 1 });
  left.channel.send({ n: 2 }, [bell, bell]);
  await until(() => right.seen.texts.length === 2);
  assert.deepEqual(right.seen.texts, ['{"n":1}', '{"n":2}']);
  assert.equal(right.seen.fds.length, 2);
  closeAll([bell, ...right.seen.fds]);
  left.channel.close('enough');
  left.channel.close('twice');
  await until(() => right.seen.closed.length > 0);
  assert.deepEqual(left.seen.closed, ['enough']);
  assert.equal(right.seen.closed.length, 1);
});

test('a paused channel receives nothing until it is resumed', async () => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const left = channel(a);
  const right = channel(b);
  right.channel.pause();
  left.channel.send({ n: 1 });
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(right.seen.texts.length, 0);
  right.channel.resume();
  await until(() => right.seen.texts.length === 1);
  left.channel.close('');
  right.channel.close('');
});

test('a message over the limit is reported, and the next one is read', async () => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const right = channel(b);
  sendMessage(a, Buffer.alloc(LIMITS.messageBytesMax + 1, 'x'));
  sendMessage(a, Buffer.from('{}'));
  await until(() => right.seen.texts.length === 1);
  assert.equal(right.seen.oversized, 1);
  right.channel.close('');
  closeFd(a);
});

test('a peer that does not read is closed, and what waited for it is dropped', async () => {
  const before = openFds().length;
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const left = channel(a);
  const bell = eventfd();
  const message = { pad: 'x'.repeat(30_000) };
  for (let n = 0; n < 1000 && !left.channel.closed; n++) left.channel.send(message, [bell]);
  assert.ok(left.channel.closed);
  await until(() => left.seen.closed.length === 1);
  closeAll([b, bell]);
  await until(() => openFds().length <= before);
});

test('a slow reader gets everything, in order', async () => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const left = channel(a);
  const pad = 'x'.repeat(30_000);
  let sent = 0;
  while (left.channel.waiting < LIMITS.sendQueueMax / 2) left.channel.send({ n: sent++, pad });
  const right = channel(b);
  await until(() => right.seen.texts.length === sent);
  assert.deepEqual(
    right.seen.texts.map((text) => JSON.parse(text).n),
    Array.from({ length: sent }, (_, n) => n),
  );
  left.channel.close('');
  right.channel.close('');
});

test('a peer that takes no descriptors gets no more of them, and counts until it has', async () => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const bell = eventfd();
  let [closed, released] = [false, false];
  const left = new MessageChannel(
    a,
    {
      onMessage: () => {},
      onOversized: () => {},
      onClose: () => {
        closed = true;
      },
      onReleased: () => {
        released = true;
      },
    },
    { foreign: true, fdsUnderWayMax: 4 },
  );
  for (let n = 0; n < 3; n++) left.send({ n }, [bell, bell]);
  left.send({ n: 3 });
  assert.equal(left.waiting, 2, 'in order: also what has none');
  const buffer = Buffer.alloc(100);
  const take = (): void => {
    const received = receiveMessage(b, buffer, SCM_MAX_FD);
    closeAll(received?.fds ?? []);
  };
  take();
  await new Promise((resolve) => setTimeout(resolve, 5 * LIMITS.sendRetryMs));
  assert.equal(left.waiting, 2, 'it has not read everything');
  take();
  await until(() => left.waiting === 0);
  left.close('enough');
  await until(() => closed);
  await new Promise((resolve) => setTimeout(resolve, 2 * LIMITS.lingerMsMax));
  assert.ok(!released);
  closeAll([b, bell]);
  await until(() => released);
});
