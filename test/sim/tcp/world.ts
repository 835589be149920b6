/** Two hosts with Extaris each, joined by links that lose, damage, reorder and delay; one thread, one clock, one seed. */
import assert from 'node:assert/strict';
import { type DelayOptions, DelayQueue } from '../../../src/device/delay.ts';
import { FaultQueue, type FaultRates } from '../../../src/device/fault.ts';
import { createPipe, type PipeQueue } from '../../../src/device/pipe.ts';
import { formatNetCounters, RX_OUTCOMES } from '../../../src/net/counters.ts';
import { NetInterface } from '../../../src/net/interface.ts';
import { type Host, PEER, US } from '../../support/frames.ts';
import type { Random } from '../../support/random.ts';
import { Clock } from './clock.ts';

export interface LinkPlan {
  /** Each direction. */
  readonly faults: FaultRates;
  /** In place of these, for what host `a` sends. */
  readonly senderFaults?: FaultRates;
  readonly delay: Omit<DelayOptions, 'nowMs' | 'random'>;
  /** Buffers of each host, beyond those that it receives into. */
  readonly frames: number;
  readonly mtu: number;
}

const RING = 128;
/** Turns at one moment before it counts as a loop. */
const TURNS_MAX = 10_000;

export class SimHost {
  readonly address: Host;
  readonly net: NetInterface;
  readonly delay: DelayQueue;
  readonly queue: FaultQueue;
  readonly #framesAtStart: number;

  constructor(address: Host, other: Host, pipe: PipeQueue, plan: LinkPlan, world: World) {
    const random = () => world.random.uint32() / 2 ** 32;
    const faults = address === PEER ? (plan.senderFaults ?? plan.faults) : plan.faults;
    this.address = address;
    this.delay = new DelayQueue(pipe, {
      ...plan.delay,
      ownFrames: 16,
      nowMs: () => world.clock.nowMs,
      random,
    });
    this.queue = new FaultQueue(this.delay, { random, tx: faults, rx: {} });
    this.#framesAtStart = this.queue.framesAvailable;
    this.net = new NetInterface({
      queue: this.queue,
      mac: address.mac,
      address: address.ip,
      prefix: 24,
      mtu: plan.mtu,
      secret: Int32Array.from({ length: 4 }, () => world.random.uint32()),
    });
    this.net.setNeighbour(other.ip, other.mac);
  }

  get nextDueMs(): number {
    return Math.min(this.net.nextTimerMs, this.delay.nextDueMs);
  }

  /** Frames that are neither in the pool nor posted to receive into. */
  get framesOut(): number {
    return this.#framesAtStart - this.queue.framesAvailable;
  }

  check(): void {
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((sum, name) => sum + counters[name], 0);
    assert.equal(outcomes, counters.rxFrames, 'each received frame has one outcome');
  }
}

export class World {
  readonly clock = new Clock();
  readonly random: Random;
  readonly a: SimHost;
  readonly b: SimHost;

  constructor(plan: LinkPlan, random: Random) {
    this.random = random;
    const ends = createPipe({ ringSize: RING, frameCount: RING + plan.frames });
    this.a = new SimHost(PEER, US, ends.a, plan, this);
    this.b = new SimHost(US, PEER, ends.b, plan, this);
  }

  /** Run until `done`, at most to `untilMs`. False when that time came first, or nothing was left to happen. */
  run(done: () => boolean, untilMs: number): boolean {
    for (;;) {
      this.#settle();
      if (done()) return true;
      const nextMs = Math.min(this.clock.nextDueMs, this.a.nextDueMs, this.b.nextDueMs);
      if (nextMs > untilMs) return false;
      this.clock.nowMs = Math.max(this.clock.nowMs, nextMs);
    }
  }

  /** After everything: let TIME-WAIT and all timers go by, and see that nothing is left. */
  finish(): void {
    this.run(() => false, this.clock.nowMs + 600_000);
    for (const host of [this.a, this.b]) {
      assert.equal(host.net.tcp.connectionCount, 0, 'no connection is left');
      assert.equal(host.net.nextTimerMs, Number.POSITIVE_INFINITY, 'no timer is left');
      assert.equal(host.delay.underWay, 0, 'nothing is on its way');
      assert.equal(host.framesOut, 0, 'every frame is back');
      host.check();
    }
  }

  describe(): string {
    return [this.a, this.b].map((host) => formatNetCounters(host.net.counters)).join('\n');
  }

  #settle(): void {
    const nowMs = this.clock.nowMs;
    for (let turn = 0; ; turn++) {
      assert.ok(turn < TURNS_MAX, `the hosts come to rest at ${nowMs} ms`);
      const work = this.clock.run() + this.a.net.poll(nowMs) + this.b.net.poll(nowMs);
      if (work > 0) continue;
      if (Math.min(this.a.nextDueMs, this.b.nextDueMs, this.clock.nextDueMs) > nowMs) return;
    }
  }
}
