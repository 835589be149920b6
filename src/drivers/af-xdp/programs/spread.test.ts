/** The flow hash of the XDP programs against that of the software NIC: random frames through the kernel's own eBPF. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rootMissing } from '../../../../test/support/privilege.ts';
import { Random } from '../../../../test/support/random.ts';
import { pairOfHash } from '../../../device/flow-hash.ts';
import { loadXdpProgram, runXdpProgram } from '../../../ffi/bpf.ts';
import { closeFd } from '../../../ffi/fd.ts';
import { FrameFields } from '../../../softnic/match.ts';
import { pairProgram } from './spread.ts';

const FRAMES = 3000;
const SEED = 20141006;

/** A frame of any addresses, ports and options; often UDP or TCP, sometimes a fragment. */
function frameOf(random: Random): Buffer {
  const frame = Buffer.alloc(14 + 60 + 8);
  const words = 5 + random.below(11);
  frame.writeUInt16BE(0x0800, 12);
  frame[14] = 0x40 | words;
  frame.writeUInt16BE(words * 4 + 8, 16);
  if (random.oneIn(4)) frame.writeUInt16BE(random.below(65536), 20);
  frame[23] = [17, 6, 1, 89][random.below(4)]!;
  frame.writeUInt32BE(random.below(2 ** 32), 26);
  frame.writeUInt32BE(random.below(2 ** 32), 30);
  frame.writeUInt16BE(random.below(65536), 14 + words * 4);
  frame.writeUInt16BE(random.below(65536), 14 + words * 4 + 2);
  return frame;
}

describe('the flow hash in eBPF', { skip: rootMissing() }, () => {
  for (const queues of [1, 2, 3, 8]) {
    test(`is that of the software NIC, for ${queues} queues`, () => {
      const program = loadXdpProgram('ark_pair', pairProgram(queues).encode());
      try {
        const random = new Random(SEED);
        const fields = new FrameFields();
        const seen = new Set<number>();
        for (let i = 0; i < FRAMES; i++) {
          const frame = frameOf(random);
          const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
          assert.equal(fields.parse(view, 0, frame.length), 0);
          const expected = pairOfHash(fields.hash(), queues);
          assert.equal(runXdpProgram(program, frame), expected, frame.toString('hex'));
          seen.add(expected);
        }
        assert.equal(seen.size, queues, 'every queue got some');
      } finally {
        closeFd(program);
      }
    });
  }

  test('what is no IPv4 stays with the first queue', () => {
    const program = loadXdpProgram('ark_pair', pairProgram(8).encode());
    try {
      // It would go elsewhere as IPv4.
      const frame = frameOf(new Random(3));
      frame[23] = 17;
      assert.notEqual(runXdpProgram(program, frame), 0);
      frame.writeUInt16BE(0x0806, 12);
      assert.equal(runXdpProgram(program, frame), 0);
    } finally {
      closeFd(program);
    }
  });
});
