import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeFd, eventfd, readFd, setNonBlocking, writeFd } from './fd.ts';
import { prepareSignals, ringIfWritable, signalPeer } from './peer-eventfd.ts';

test('every ring counts', () => {
  const fd = eventfd();
  for (let i = 0; i < 1000; i++) signalPeer(fd);
  const count = Buffer.alloc(8);
  assert.equal(readFd(fd, count), 8);
  assert.equal(count.readBigUInt64LE(), 1000n);
  closeFd(fd);
});

test('a full eventfd that would block a writer does not block us', () => {
  const fd = eventfd();
  const full = Buffer.alloc(8);
  full.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
  assert.equal(writeFd(fd, full), 8);
  setNonBlocking(fd, false);
  for (let i = 0; i < 100; i++) signalPeer(fd);
  closeFd(fd);
  signalPeer(fd);
});

test('without AIO a full eventfd does not block us either, and one that is not full is rung', () => {
  assert.equal(typeof prepareSignals(), 'boolean');
  const fd = eventfd();
  const count = Buffer.alloc(8);
  ringIfWritable(fd);
  assert.equal(readFd(fd, count), 8);
  assert.equal(count.readBigUInt64LE(), 1n);
  count.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
  assert.equal(writeFd(fd, count), 8);
  setNonBlocking(fd, false);
  ringIfWritable(fd);
  closeFd(fd);
});
