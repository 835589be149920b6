/** The other thread of threads.test.ts: answers every message by its number, and sleeps when there is none. */
import { workerData } from 'node:worker_threads';
import { POLLIN, pollOne } from '../ffi/fd.ts';
import { linkMemory } from './layout.ts';
import { LINK_STATE, MessageLink } from './link.ts';
import { NONE } from './ring.ts';

const { memory, bells, capacity } = workerData;
const link = new MessageLink(linkMemory(memory), { capacity, side: 1, bells });
const { view } = link.memory;
let expected = 0;

function answer(number: number): void {
  let at = link.reserve(4);
  while (at === NONE && link.state === LINK_STATE.open) {
    link.publish();
    at = link.reserve(4);
  }
  if (at === NONE) return;
  view.setInt32(at, number, true);
  link.commit(4, number);
}

while (link.state === LINK_STATE.open) {
  let count = 0;
  for (let length = link.receive(); length !== NONE; length = link.receive()) {
    const number = view.getInt32(link.offset, true);
    const whole = view.getUint8(link.offset + length - 1) === (number & 0xff);
    if (number !== expected || link.tag !== ~number || !whole) throw new Error('a wrong message');
    expected++;
    answer(number);
    count++;
  }
  link.release();
  link.publish();
  if (count === 0 && link.arm()) {
    pollOne(link.doorbellFd, POLLIN, 10_000);
    link.disarm();
  }
}
link.close();
