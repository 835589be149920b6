import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as vu from './vhost-user.ts';

test('a message is its header and its payload', () => {
  const message = vu.encodeMessage(
    vu.REQ.GET_FEATURES,
    vu.encodeU64(0x1_4000_0000n),
    vu.FLAG_REPLY,
  );
  assert.equal(message.toString('hex'), '010000000500000008000000' + '0000004001000000');
  assert.deepEqual(vu.decodeHeader(message), { request: 1, flags: 5, size: 8 });
  assert.equal(vu.decodeU64(message.subarray(vu.HEADER_LEN)), 0x1_4000_0000n);
});

test('a header that is short, of another version or too large is malformed', () => {
  const message = vu.encodeMessage(vu.REQ.SET_OWNER);
  for (let length = 0; length < vu.HEADER_LEN; length++) {
    assert.equal(vu.decodeHeader(message.subarray(0, length)), null);
  }
  for (const version of [0, 2, 3]) {
    message.writeUInt32LE(version, 4);
    assert.equal(vu.decodeHeader(message), null);
  }
  message.writeUInt32LE(1, 4);
  message.writeUInt32LE(vu.PAYLOAD_LEN_MAX, 8);
  assert.notEqual(vu.decodeHeader(message), null);
  message.writeUInt32LE(vu.PAYLOAD_LEN_MAX + 1, 8);
  assert.equal(vu.decodeHeader(message), null);
});

test('ring state and addresses survive the way there and back', () => {
  const state = { index: 1, num: 256 };
  assert.deepEqual(vu.decodeVringState(vu.encodeVringState(state)), state);
  const addr = { index: 1, flags: 0, desc: 0x7fff_1234_5000, used: 2 ** 53 - 1, avail: 2, log: 0 };
  assert.deepEqual(vu.decodeVringAddr(vu.encodeVringAddr(addr)), addr);
});

test('an address of 2^53 or more is malformed wherever it stands', () => {
  const ring = vu.encodeVringAddr({ index: 0, flags: 0, desc: 0, used: 0, avail: 0, log: 0 });
  for (const at of [8, 16, 24, 32]) {
    const bad = Buffer.from(ring);
    bad.writeBigUInt64LE(2n ** 53n, at);
    assert.equal(vu.decodeVringAddr(bad), null);
  }
  const table = vu.encodeMemTable([{ guestAddress: 1, size: 4096, userAddress: 1, offset: 1 }]);
  for (const at of [8, 16, 24, 32]) {
    const bad = Buffer.from(table);
    bad.writeBigUInt64LE(2n ** 53n, at);
    assert.equal(vu.decodeMemTable(bad), null);
    bad.writeBigUInt64LE(2n ** 53n - 1n, at);
    assert.equal(vu.decodeMemTable(bad), null, 'its end is not an address');
  }
});

test('memory tables: one to eight regions of exactly the length they claim', () => {
  const region = {
    guestAddress: 0x1000,
    size: 0x2000,
    userAddress: 0x7f00_0000_0000,
    offset: 0x10,
  };
  for (let count = 1; count <= 8; count++) {
    const regions = Array.from({ length: count }, (_, i) => ({ ...region, offset: i * 4096 }));
    const table = vu.encodeMemTable(regions);
    assert.deepEqual(vu.decodeMemTable(table), regions);
    assert.equal(vu.decodeMemTable(table.subarray(0, -1)), null);
    table.writeUInt32LE(count + 1, 0);
    assert.equal(vu.decodeMemTable(table), null);
  }
  assert.equal(vu.decodeMemTable(vu.encodeMemTable([])), null);
  assert.equal(vu.decodeMemTable(vu.encodeMemTable([{ ...region, size: 0 }])), null);
  const nine = vu.encodeMemTable(Array.from({ length: 9 }, () => region));
  assert.equal(vu.decodeMemTable(nine), null);
  assert.deepEqual(vu.decodeMemReg(vu.encodeMemReg(region)), region);
});

test('payloads of another length are malformed', () => {
  for (let length = 0; length < 64; length++) {
    const payload = Buffer.alloc(length);
    if (length !== 8) {
      assert.equal(vu.decodeU64(payload), null);
      assert.equal(vu.decodeVringState(payload), null);
    }
    if (length !== 40) {
      assert.equal(vu.decodeVringAddr(payload), null);
      assert.equal(vu.decodeMemReg(payload), null);
    }
    assert.equal(vu.decodeMemTable(payload), null);
  }
});

test('feature sets', () => {
  const set = vu.featureSet(vu.FEATURE.VIRTIO_F_VERSION_1, vu.FEATURE.VIRTIO_RING_F_EVENT_IDX);
  assert.equal(set, (1n << 32n) | (1n << 29n));
  assert.equal(vu.hasFeature(set, 29), true);
  assert.equal(vu.hasFeature(set, 30), false);
});
