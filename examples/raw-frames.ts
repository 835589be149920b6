/**
 * Below the stack: count the frames that arrive, by EtherType. A frame is a number: where it starts in the region.
 *
 *   arrakis run --vnic soft0,ip=10.77.0.4/24 -- dist/examples/raw-frames.js
 */
import { connect } from '../src/arrakis/index.ts';

const BATCH = 64;
const ETHER_TYPE = 12;

const domain = await connect();
const vnic = await domain.openVnic();
const { queue } = vnic;
const frames = new Uint32Array(BATCH);
const lengths = new Uint16Array(BATCH);
const counts = new Uint32Array(65_536);

function turn(): number {
  const received = queue.rxBatch(frames, lengths, BATCH);
  for (let i = 0; i < received; i++) {
    const frame = frames[i]!;
    if (lengths[i]! >= 14) counts[queue.memory.view.getUint16(frame + ETHER_TYPE)]!++;
    queue.free(frame);
  }
  return received;
}

const report = setInterval(() => {
  counts.forEach((count, type) => {
    if (count > 0) console.log(`0x${type.toString(16).padStart(4, '0')}: ${count} frames`);
  });
}, 1000);
await vnic.poll(turn).done;
clearInterval(report);
