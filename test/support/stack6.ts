/** The stack with IPv6 on a device without a network, for tests: turn by turn, at explicit times (milliseconds). */
import assert from 'node:assert/strict';
import { parseIpv6 } from '../../src/base/address.ts';
import { type NetCounter, RX_OUTCOMES } from '../../src/net/counters.ts';
import { NetInterface, type NetOptions } from '../../src/net/interface.ts';
import type { Ipv6Options } from '../../src/net/ipv6/stack.ts';
import { UDP6_PAYLOAD_OFFSET } from '../../src/net/ipv6/udp.ts';
import { formatFrame } from '../../src/wire/format.ts';
import { FakeQueue } from './fake-queue.ts';
import { US, viewOfBytes } from './frames.ts';
import { type Host6, US6_GLOBAL, udp6Frame } from './frames6.ts';

export const HELLO = new Uint8Array(Buffer.from('hello'));
export const FAR6 = '2001:db8:ffff::5';
const MLD_REPORT = 'ICMPv6 MLD report code 0';
export const OUR_GLOBAL = { address: parseIpv6(US6_GLOBAL.ip), prefix: 64 };

export class Stack {
  readonly queue = new FakeQueue();
  readonly net: NetInterface;
  nowMs = 0;

  constructor(ipv6: Ipv6Options = {}, options: Partial<NetOptions> = {}) {
    this.net = new NetInterface({
      queue: this.queue,
      mac: US.mac,
      address: US.ip,
      prefix: 24,
      ipv6,
      random: () => 2 ** 31,
      ...options,
    });
  }

  turn(nowMs: number): this {
    this.nowMs = nowMs;
    this.net.poll(nowMs);
    return this;
  }

  receive(...frames: Uint8Array[]): this {
    for (const frame of frames) this.queue.inject(frame);
    return this.turn(this.nowMs);
  }

  send(ip: string, mark = 0, port = 7): this {
    const frame = this.net.udp6.alloc();
    this.queue.memory.u8[frame + UDP6_PAYLOAD_OFFSET] = mark;
    this.net.udp6.sendTo(frame, 1, 7, parseIpv6(ip), port);
    return this.turn(this.nowMs);
  }

  /** What was sent since the last look, a line a frame, without reports. */
  sent(): string[] {
    return this.queue
      .takeSent()
      .map((f) => formatFrame(viewOfBytes(f), 0, f.length))
      .filter((line) => !line.endsWith(MLD_REPORT));
  }

  expectSent(...lines: string[]): this {
    assert.deepEqual(this.sent(), lines);
    return this;
  }

  expectNeighbour(ip: string, state: string): this {
    assert.equal(this.net.ipv6.neighbourState(parseIpv6(ip)), state);
    return this;
  }

  /** Every frame is back, and this was counted. */
  expectCount(name: NetCounter, count = 1): this {
    assert.equal(this.net.counters[name], count, name);
    return this.expectAllFrames();
  }

  expectAllFrames(): this {
    assert.equal(this.queue.framesAvailable, this.queue.memory.frameCount);
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((total, name) => total + counters[name], 0);
    assert.equal(outcomes, counters.rxFrames, 'one outcome each');
    return this;
  }

  addresses(): string[] {
    return this.net.ipv6.list().map((a) => `${a.address}/${a.prefix} ${a.state}`);
  }
}

/** With its addresses in use, nothing asked and nothing waiting. */
export function ready(ipv6: Ipv6Options = {}, options: Partial<NetOptions> = {}): Stack {
  const s = new Stack(
    { dadTransmits: 0, autoconfigure: false, addresses: [OUR_GLOBAL], ...ipv6 },
    options,
  );
  s.turn(0).turn(2_000);
  s.queue.takeSent();
  return s;
}

export const toUs = (from: Host6, to: Host6 = US6_GLOBAL, payload = HELLO): Uint8Array =>
  udp6Frame({ ...from, port: 1024 }, { ...to, port: 7 }, payload);
