/** A link between two ends in one process: bells, closing, a peer that dies, and one that breaks the rules. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { closeFd, openFds, POLLIN, pollOne } from '../ffi/fd.ts';
import { HEAD, linkBytes, linkMemory, TAIL } from './layout.ts';
import { LINK_STATE, type LinkBells, MessageLink, makeBells } from './link.ts';
import { NONE } from './ring.ts';

const CAPACITY = 4096;
let fds: number;
let bells: readonly [LinkBells, LinkBells];
let left: MessageLink;
let right: MessageLink;

beforeEach(() => {
  fds = openFds().length;
  bells = makeBells();
  const memory = linkMemory(new SharedArrayBuffer(linkBytes(CAPACITY)));
  left = new MessageLink(memory, { capacity: CAPACITY, side: 0, bells: bells[0] });
  right = new MessageLink(memory, { capacity: CAPACITY, side: 1, bells: bells[1] });
});

afterEach(() => {
  left.close();
  right.close();
  assert.equal(openFds().length, fds);
});

const rung = (link: MessageLink): boolean => pollOne(link.doorbellFd, POLLIN, 0) !== 0;

test('both ways at once, and no system call while the other polls', () => {
  left.send(Buffer.from('ping'), 4, 7);
  left.publish();
  right.send(Buffer.from('pong'), 4, 8);
  right.publish();
  assert.equal(right.receive(), 4);
  assert.equal(right.tag, 7);
  assert.equal(right.memory.bytes.toString('utf8', right.offset, right.offset + 4), 'ping');
  assert.equal(left.receive(), 4);
  assert.equal(left.memory.bytes.toString('utf8', left.offset, left.offset + 4), 'pong');
  assert.equal(left.rings + right.rings, 0);
});

test('a sleeper is woken once, and one that sleeps again is woken again', () => {
  for (let n = 0; n < 3; n++) {
    assert.equal(right.arm(), true);
    assert.equal(rung(right), false);
    left.send(Buffer.from('x'));
    left.publish();
    left.send(Buffer.from('y'));
    left.publish();
    assert.equal(rung(right), true);
    right.disarm();
    assert.equal(rung(right), false);
    assert.equal(right.receive(), 1);
    assert.equal(right.receive(), 1);
    right.release();
  }
  assert.equal(left.rings, 3);
});

test('who waits for room is woken by a release', () => {
  while (left.send(Buffer.alloc(100)));
  left.publish();
  assert.equal(left.arm(true), true);
  while (right.receive() !== NONE);
  right.release();
  assert.equal(rung(left), true);
});

test('what was sent before a close is received, then the link has ended', () => {
  assert.equal(right.arm(), true);
  left.send(Buffer.from('last'));
  left.publish();
  left.close();
  assert.equal(rung(right), true);
  right.disarm();
  assert.equal(right.state, LINK_STATE.open);
  assert.equal(right.receive(), 4);
  right.release();
  assert.equal(right.state, LINK_STATE.ended);
  assert.equal(right.endReason, 'the peer closed it');
  assert.equal(right.receive(), NONE);
  assert.equal(right.send(Buffer.from('x')), false);
});

test('a peer that dies in the middle of a message is noticed, and the message never was', () => {
  left.send(Buffer.from('whole'));
  left.publish();
  left.memory.bytes.write('half', left.reserve(100));
  // The kernel closes its descriptors; nothing else happens.
  closeFd(bells[0].own);
  closeFd(bells[0].peer);
  assert.equal(right.receive(), 5);
  right.release();
  assert.equal(right.receive(), NONE);
  assert.equal(right.arm(), false);
  assert.equal(right.state, LINK_STATE.ended);
  assert.equal(right.endReason, 'the peer ended');
  right.close();
  // For afterEach: `left` owns numbers that are closed already.
  bells = makeBells();
  const memory = linkMemory(new SharedArrayBuffer(linkBytes(CAPACITY)));
  left = new MessageLink(memory, { capacity: CAPACITY, side: 0, bells: bells[0] });
  right = new MessageLink(memory, { capacity: CAPACITY, side: 1, bells: bells[1] });
});

test('a peer that breaks the rules ends the link with a reason', () => {
  Atomics.store(left.memory.words, TAIL / 4, 0x7ffffff8);
  assert.equal(right.receive(), NONE);
  assert.equal(right.state, LINK_STATE.broken);
  assert.match(right.endReason, /broke the protocol: the writer/);
  Atomics.store(left.memory.words, HEAD / 4, 64);
  while (left.send(Buffer.alloc(100)));
  assert.equal(left.state, LINK_STATE.broken);
  assert.match(left.endReason, /reader's position/);
});
