/** When the loop sleeps: with ports, a clock and sockets that are played. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LoopHost, run } from './loop.ts';
import { Pace } from './pace.ts';

const SPIN_US = 200;
const TURN_US = 1;
const TURNS = 2000;
/** Until the frame of a held sender may go: it always has another. */
const HELD_US = 50;

/** Microseconds for which the loop looked for frames after the last of each kind, before it slept. */
function spinBeforeSleep(who: { held: boolean; lively: boolean }, startUs = 1_000_000): number {
  let nowUs = startUs;
  let turns = 0;
  let lastLivelyUs = nowUs;
  let spun = -1;
  const clock = (): number => nowUs | 0;
  const pace = new Pace(clock);
  pace.isTimed = true;
  const port = {
    poll(): number {
      nowUs += TURN_US;
      turns++;
      if (who.lively && turns === 1) {
        pace.isLively = true;
        lastLivelyUs = nowUs;
        return 1;
      }
      return who.held && turns % HELD_US === 0 ? 1 : 0;
    },
    publish() {},
    arm: () => true,
    disarm() {},
    sendWaitUs: () => (who.held ? HELD_US : 0),
    ringWaitUs: () => -1,
  };
  const host = {
    watches: {
      wait(timeoutUs: number): number {
        if (timeoutUs !== 0 && spun < 0) spun = nowUs - lastLivelyUs;
        return 0;
      },
    },
    switch: { uplink: null },
    pace,
    ports: [port],
    settle() {},
    get running() {
      return turns < TURNS && spun < 0;
    },
    spinUs: SPIN_US,
  };
  run(host as unknown as LoopHost, clock);
  return spun;
}

test('who sends is spun for, also while another is held back by its limit', () => {
  for (const held of [false, true]) {
    const spun = spinBeforeSleep({ held, lively: true });
    assert.ok(spun >= SPIN_US && spun < 2 * SPIN_US, `${spun} us`);
  }
});

test('who is held back is not spun for', () => {
  const spun = spinBeforeSleep({ held: true, lively: false });
  assert.ok(spun >= 0 && spun < SPIN_US / 2, `${spun} us`);
});

test('a device that nobody uses sleeps, wherever its clock stands when it starts', () => {
  for (const startUs of [0, 2 ** 31 - 100, 2 ** 31 + 100, 2 ** 32 - 100, 3 * 2 ** 30]) {
    const spun = spinBeforeSleep({ held: false, lively: false }, startUs);
    assert.ok(spun >= 0 && spun < SPIN_US / 2, `${spun} us from ${startUs}`);
  }
});
