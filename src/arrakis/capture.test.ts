/** One file from several pairs, through a pipe of a page whose reader takes a little at a time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CaptureTap } from '../device/pcap.ts';
import { createPipe } from '../device/pipe.ts';
import { closeFd, isOpen, readFd } from '../ffi/fd.ts';
import { pipePair } from '../ffi/pipe.ts';
import { CaptureSession, ThreadCapture } from './capture.ts';

const ROUNDS = 40;
const FRAME_BYTES = 1000;
const HEADERS = [0x0a0d0d0a, 1, 1];
const PACKET = 6;

/** A tap, and a function that has it see `count` frames whose bytes are `fill`. */
function source() {
  const { a } = createPipe();
  const tap = new CaptureTap(a, { nowNs: () => 1, bufferBytes: 1 << 18 });
  const send = (count: number, fill: number): void => {
    const frames = Uint32Array.from({ length: count }, () => tap.alloc());
    for (const frame of frames) tap.memory.u8.fill(fill, frame, frame + FRAME_BYTES);
    assert.equal(tap.txBatch(frames, new Uint16Array(count).fill(FRAME_BYTES), count), count);
    tap.reclaim(count);
  };
  return { tap, send };
}

interface Block {
  readonly type: number;
  readonly interfaceId: number;
  readonly fill: number;
}

/** Throws when a block is torn. */
function blocksOf(file: Buffer): Block[] {
  const blocks: Block[] = [];
  for (let at = 0; at < file.length; ) {
    const length = file.readUInt32LE(at + 4);
    assert.equal(file.readUInt32LE(at + length - 4), length);
    const isPacket = file.readUInt32LE(at) === PACKET;
    if (isPacket)
      assert.ok(file.subarray(at + 28, at + 1028).every((byte) => byte === file[at + 28]));
    blocks.push({
      type: file.readUInt32LE(at),
      interfaceId: isPacket ? file.readUInt32LE(at + 8) : -1,
      fill: isPacket ? file[at + 28]! : -1,
    });
    at += length;
  }
  return blocks;
}

test('pairs of this thread and of another are in one file, whole and each in order', async () => {
  const { reader, writer } = pipePair();
  const session = new CaptureSession(writer, ['queue 0', 'queue 1'], 65535, assert.fail);
  const [own, other] = [source(), source()];
  session.add(0, own.tap);
  const options = { id: 1, pair: 1, snapLength: session.snapLength };
  const thread = new ThreadCapture(other.tap, options, (blocks) =>
    session.take(blocks, () => thread.written()),
  );
  const chunks: Buffer[] = [];
  const buffer = Buffer.alloc(700);
  const read = (): void => {
    const count = readFd(reader, buffer);
    if (count > 0) chunks.push(Buffer.from(buffer.subarray(0, count)));
  };
  for (let round = 0; round < ROUNDS; round++) {
    own.send(4, round);
    other.send(4, round);
    own.tap.flush();
    other.tap.flush();
    for (let i = 0; i < 16; i++) read();
  }
  thread.stop();
  // What the pipe does not take at the end is lost: it is read first.
  for (let i = 0; i < 1000; i++) {
    read();
    own.tap.flush();
    session.take(new Uint8Array(0), () => {});
  }
  session.stop(Promise.resolve());
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!isOpen(writer), 'the descriptor is closed');
  for (let i = 0; i < 16; i++) read();
  closeFd(reader);
  const blocks = blocksOf(Buffer.concat(chunks));
  assert.deepEqual(
    blocks.slice(0, 3).map(({ type }) => type),
    HEADERS,
  );
  for (const pair of [0, 1]) {
    const fills = blocks.filter(({ interfaceId }) => interfaceId === pair).map(({ fill }) => fill);
    const sent = Array.from({ length: 4 * ROUNDS }, (_, i) => Math.floor(i / 4));
    assert.deepEqual(fills, sent, `pair ${pair}`);
  }
});

test('a thread hands over no more than is written, and loses what its buffer does not hold', () => {
  const { tap, send } = source();
  const chunks: Uint8Array[] = [];
  const thread = new ThreadCapture(tap, { id: 1, pair: 3, snapLength: 65535 }, (blocks) =>
    chunks.push(blocks),
  );
  const round = (): void => {
    send(4, 7);
    tap.flush();
  };
  for (let i = 0; i < 10; i++) round();
  assert.equal(chunks.length, 2);
  thread.written();
  round();
  assert.equal(chunks.length, 3);
  thread.stop();
  assert.equal(chunks.length, 3, 'nothing was left');
  assert.ok(blocksOf(Buffer.concat(chunks)).every(({ interfaceId }) => interfaceId === 3));
});

test('when nobody reads any more the capture says so, and not within a batch', async () => {
  const { reader, writer } = pipePair();
  let failed = 0;
  const session = new CaptureSession(writer, ['queue 0'], 65535, () => failed++);
  const { tap, send } = source();
  session.add(0, tap);
  closeFd(reader);
  send(4, 1);
  tap.flush();
  assert.equal(failed, 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(failed, 1);
  session.stop();
  assert.ok(!isOpen(writer) && !tap.capturing);
});
