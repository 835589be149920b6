/** RFC 6298's rules with numbers, and sequence arithmetic at its ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RTO_INITIAL_US, RTO_LIMITS, RttEstimator } from './rtt.ts';
import { elapsedUs, seqAdd, seqAtMost, seqDiff, seqInRange, seqLessThan, seqMax } from './seq.ts';

test('one second until there is a sample (2.1)', () => {
  assert.equal(new RttEstimator().rtoUs, RTO_INITIAL_US);
});

test('the first sample: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR (2.2)', () => {
  const rtt = new RttEstimator();
  rtt.sample(300_000, 0, RTO_LIMITS);
  assert.equal(rtt.srttUs, 300_000);
  assert.equal(rtt.varianceUs, 150_000);
  assert.equal(rtt.rtoUs, 900_000);
});

test('the next: RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|, SRTT = 7/8 SRTT + 1/8 R (2.3)', () => {
  const rtt = new RttEstimator();
  rtt.sample(300_000, 0, RTO_LIMITS);
  rtt.sample(100_000, 0, RTO_LIMITS);
  assert.equal(rtt.varianceUs, (3 * 150_000 + 200_000) / 4);
  assert.equal(rtt.srttUs, (7 * 300_000 + 100_000) / 8);
  assert.equal(rtt.rtoUs, 275_000 + 4 * 162_500);
});

test('steady round trips of microseconds come to the minimum beyond them (2.4)', () => {
  const rtt = new RttEstimator();
  for (let i = 0; i < 200; i++) rtt.sample(45, i, RTO_LIMITS);
  assert.equal(rtt.srttUs, 45);
  assert.ok(rtt.varianceUs <= 1);
  assert.equal(rtt.rtoUs, 200_045);
  for (let i = 0; i < 200; i++) rtt.sample(52, i, RTO_LIMITS);
  assert.equal(rtt.srttUs, 52, 'small steps are not lost in rounding');
});

test('a long path without variation does not expire as the answer comes', () => {
  const rtt = new RttEstimator();
  for (let i = 0; i < 200; i++) rtt.sample(400_000, i, RTO_LIMITS);
  assert.equal(rtt.rtoUs, 600_000);
});

test('backoff doubles up to the maximum, and a sample ends it (5.5, 2.5)', () => {
  const rtt = new RttEstimator();
  rtt.sample(300_000, 0, RTO_LIMITS);
  rtt.backOff(RTO_LIMITS);
  assert.equal(rtt.rtoUs, 1_800_000);
  for (let i = 0; i < 20; i++) rtt.backOff(RTO_LIMITS);
  assert.equal(rtt.rtoUs, 120_000_000);
  rtt.sample(300_000, 0, RTO_LIMITS);
  assert.ok(rtt.rtoUs < 900_000);
});

test('a sample of hours, or of nothing, stays within bounds', () => {
  const rtt = new RttEstimator();
  rtt.sample(0x7fffffff, 0, RTO_LIMITS);
  assert.equal(rtt.rtoUs, 120_000_000);
  rtt.sample(-5, 0, RTO_LIMITS);
  assert.ok(rtt.srttUs > 0);
  assert.equal(rtt.minUs, 1);
});

test('three seconds after a SYN that was sent again (5.7)', () => {
  const rtt = new RttEstimator();
  rtt.afterSynLoss();
  assert.equal(rtt.rtoUs, 3_000_000);
});

test('sequence numbers wrap at 2^31 and 2^32', () => {
  for (const start of [0, 0x7ffffff0, -0x80000000, -16]) {
    const later = seqAdd(start, 32);
    assert.equal(seqDiff(later, start), 32);
    assert.ok(seqLessThan(start, later) && !seqLessThan(later, start));
    assert.ok(seqAtMost(start, start) && !seqLessThan(start, start));
    assert.equal(seqMax(start, later), later);
    assert.ok(seqInRange(start, start, later) && !seqInRange(later, start, later));
    assert.ok(!seqInRange(start, start, start));
    assert.equal(elapsedUs(later, start), 32);
  }
});
