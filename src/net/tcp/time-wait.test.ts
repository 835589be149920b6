/** What flows in TIME-WAIT keep, when they come and go without end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NET_LIMITS } from '../limits.ts';
import type { TcpStack } from './stack.ts';
import type { Tcb } from './tcb.ts';
import { TimeWaits } from './time-wait.ts';

/** Only what TIME-WAIT asks of a stack and of a connection. */
function fakes() {
  const removed: number[] = [];
  const stack = {
    nowMs: 1000,
    counters: { tcpTimeWaitEvicted: 0 },
    wheel: { schedule: () => {}, cancel: () => {} },
    table: { size: 65_536, remove: (id: number) => removed.push(id) },
  };
  const tcb = (id: number) =>
    ({ id, rcvNxt: 1, recovery: { queue: { nxt: 1 } }, tsRecent: 0 }) as unknown as Tcb;
  return { stack, removed, waits: new TimeWaits(stack as unknown as TcpStack), tcb };
}

test('flows that come and go for ever are not remembered for ever', () => {
  const { stack, waits, tcb } = fakes();
  for (let i = 0; i < 100_000; i++) {
    // A hundred at a time, by ids that are used again.
    waits.add(tcb(i % 1000));
    if (i >= 100) {
      stack.nowMs += NET_LIMITS.tcpTimeWaitMs;
      waits.onDue((i - 100) % 1000);
    }
    assert.ok(waits.listed < 3000, `${waits.listed} are listed`);
  }
  assert.equal(waits.count, 100);
});

test('the flow that has waited longest makes room', () => {
  const { stack, removed, waits, tcb } = fakes();
  for (let id = 1; id <= 3; id++) waits.add(tcb(id));
  waits.forget(2);
  waits.add(tcb(2));
  assert.equal(waits.evict(), true);
  assert.deepEqual(removed, [2, 1]);
  assert.equal(stack.counters.tcpTimeWaitEvicted, 1);
});
