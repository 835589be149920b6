/** The DHCP client against a server that does what the test says, second by second. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Asked, answer, askedIn } from '../../../test/support/dhcp-server.ts';
import { FakeQueue } from '../../../test/support/fake-queue.ts';
import { arpFrame, udpFrame } from '../../../test/support/frames.ts';
import { Random } from '../../../test/support/random.ts';
import { parseIpv4 } from '../../base/address.ts';
import { NetInterface } from '../interface.ts';
import { DhcpClient } from './client.ts';
import type { Lease } from './lease.ts';
import { DHCP, OPTION } from './message.ts';

const MAC = 0x020000000002;
const SERVER = { mac: 0x020000000001, ip: parseIpv4('10.0.0.1'), port: 67 };
const ADDRESS = parseIpv4('10.0.0.50');
const quad = (ip: number): number[] => [ip >>> 24, (ip >>> 16) & 255, (ip >>> 8) & 255, ip & 255];
const SECONDS = 1000;

function grant(changes: Record<number, number[] | null> = {}): [number, number[]][] {
  const options: Record<number, number[] | null> = {
    [OPTION.server]: quad(SERVER.ip),
    [OPTION.leaseSeconds]: quad(SECONDS),
    [OPTION.subnetMask]: quad(0xffffff00),
    [OPTION.router]: quad(SERVER.ip),
    [OPTION.dns]: [...quad(SERVER.ip), ...quad(parseIpv4('9.9.9.9'))],
    ...changes,
  };
  return Object.entries(options).flatMap(([code, value]) =>
    value === null ? [] : [[Number(code), value] as [number, number[]]],
  );
}

class Stage {
  readonly queue = new FakeQueue();
  readonly leases: (Lease | null)[] = [];
  readonly net: NetInterface;
  readonly client: DhcpClient;
  nowMs = 0;

  constructor(seed = 1) {
    const generator = new Random(seed);
    const random = () => generator.uint32();
    const { queue } = this;
    this.net = new NetInterface({ queue, mac: MAC, address: 0, prefix: 0, random });
    const onLease = (lease: Lease | null) => this.leases.push(lease);
    const options = { net: this.net, mac: MAC, random, onLease, hostName: 'test' };
    this.client = new DhcpClient(options, queue.memory.u8);
    this.client.start();
  }

  /** What the client asks within `ms` from now, in steps of 100. */
  run(ms: number): Asked[] {
    const sent: Uint8Array[] = [];
    for (const end = this.nowMs + ms; this.nowMs < end; this.nowMs += 100) {
      this.net.poll(this.nowMs);
      sent.push(...this.queue.takeSent());
    }
    return askedIn(sent);
  }

  /** The server's answer to `asked`, received at once: what the client asks then. */
  say(type: number, asked: Asked, options = grant(), address = ADDRESS, from = SERVER): Asked[] {
    const payload = answer(type, asked.xid, MAC, address, options);
    const isBroadcast = asked.clientAddress === 0;
    const to = isBroadcast ? { mac: 0xffffffffffff, ip: 0xffffffff } : { mac: MAC, ip: ADDRESS };
    this.queue.inject(udpFrame(from, { ...to, port: 68 }, payload));
    this.net.poll(this.nowMs);
    return askedIn(this.queue.takeSent());
  }

  /** Through to a lease. */
  bind(options = grant()): this {
    const [discover] = this.run(100);
    const [request] = this.say(DHCP.offer, discover!, options);
    this.say(DHCP.ack, request!, options);
    this.run(10_000);
    assert.equal(this.client.state, 'bound');
    return this;
  }
}

describe('to a lease', () => {
  test('discover, offer, request, acknowledgement, silence', () => {
    const stage = new Stage();
    const [discover] = stage.run(100);
    assert.deepEqual([discover!.type, discover!.to, discover!.isBroadcast], [1, 0xffffffff, true]);
    assert.equal(Buffer.from(discover!.options.get(OPTION.hostName)!).toString(), 'test');
    const [request] = stage.say(DHCP.offer, discover!);
    assert.equal(request!.type, DHCP.request);
    assert.deepEqual([...request!.options.get(OPTION.requestedAddress)!], quad(ADDRESS));
    assert.deepEqual([...request!.options.get(OPTION.server)!], quad(SERVER.ip));
    stage.say(DHCP.ack, request!);
    assert.equal(stage.client.state, 'probing');
    assert.equal(stage.leases.length, 0, 'not before it is known to be free');
    stage.run(10_000);
    assert.equal(stage.client.state, 'bound');
    assert.equal(stage.leases.length, 1);
    const { address, prefix, gateway, dns } = stage.leases[0]!;
    assert.deepEqual([address, prefix, gateway, dns.length], [ADDRESS, 24, SERVER.ip, 2]);
    stage.queue.inject(arpFrame(1, SERVER, { mac: MAC, ip: ADDRESS }));
    stage.net.poll(stage.nowMs);
    assert.equal(stage.net.counters.arpReplies, 1, 'the interface has the address');
  });

  test('no answer: again after 4, 8, 16, 32, 64, 64 seconds, about', () => {
    const stage = new Stage();
    const at: number[] = [];
    while (stage.nowMs < 200_000) if (stage.run(100).length > 0) at.push(stage.nowMs / 1000);
    const pauses = at.slice(1).map((time, i) => time - at[i]!);
    for (const [i, pause] of [4, 8, 16, 32, 64].entries()) {
      assert.ok(Math.abs(pauses[i]! - pause) < 1.3);
    }
  });

  test('no acknowledgement: four requests, then from the start', () => {
    const stage = new Stage();
    stage.say(DHCP.offer, stage.run(100)[0]!);
    const types = stage.run(70_000).map(({ type }) => type);
    assert.deepEqual(types.slice(0, 4), [3, 3, 3, 1]);
  });

  test('refused: from the start', () => {
    const stage = new Stage();
    const [request] = stage.say(DHCP.offer, stage.run(100)[0]!);
    stage.say(DHCP.nak, request!, [[OPTION.server, quad(SERVER.ip)]]);
    assert.equal(stage.client.state, 'selecting');
    assert.equal(stage.run(5000)[0]!.type, DHCP.discover);
  });

  test('somebody has the address: declined, and asked for another after ten seconds', () => {
    const stage = new Stage();
    const [request] = stage.say(DHCP.offer, stage.run(100)[0]!);
    stage.say(DHCP.ack, request!);
    stage.run(1500);
    stage.queue.inject(arpFrame(2, { mac: 0x020000000099, ip: ADDRESS }, { mac: MAC, ip: 0 }));
    const asked = stage.run(9000);
    assert.deepEqual(
      asked.map(({ type }) => type),
      [DHCP.decline],
    );
    assert.deepEqual([...asked[0]!.options.get(OPTION.requestedAddress)!], quad(ADDRESS));
    assert.equal(stage.leases.length, 0);
    assert.equal(stage.run(2000)[0]!.type, DHCP.discover);
  });
});

describe('what a server says that is not believed', () => {
  const lies: [string, (stage: Stage, asked: Asked) => Asked[]][] = [
    ['another transaction', (s, a) => s.say(DHCP.offer, { ...a, xid: a.xid ^ 1 })],
    ['another port', (s, a) => s.say(DHCP.offer, a, grant(), ADDRESS, { ...SERVER, port: 66 })],
    ['no address', (s, a) => s.say(DHCP.offer, a, grant(), 0)],
    ['a group', (s, a) => s.say(DHCP.offer, a, grant(), 0xe0000001)],
    ['no server', (s, a) => s.say(DHCP.offer, a, grant({ [OPTION.server]: null }))],
    ['a hole in the mask', (s, a) => s.say(DHCP.offer, a, grant({ 1: quad(0xff00ff00) }))],
    ['no time', (s, a) => s.say(DHCP.offer, a, grant({ [OPTION.leaseSeconds]: null }))],
    ['one second', (s, a) => s.say(DHCP.offer, a, grant({ [OPTION.leaseSeconds]: quad(1) }))],
    ['a short option', (s, a) => s.say(DHCP.offer, a, grant({ [OPTION.leaseSeconds]: [1] }))],
    ['no offer was asked for', (s, a) => s.say(DHCP.ack, a)],
  ];
  for (const [what, say] of lies) {
    test(what, () => {
      const stage = new Stage();
      const [discover] = stage.run(100);
      assert.deepEqual(say(stage, discover!), []);
      assert.equal(stage.client.state, 'selecting');
    });
  }

  test('nonsense in every byte of an offer: nothing throws', () => {
    const random = new Random(7);
    const stage = new Stage();
    const [discover] = stage.run(100);
    for (let i = 0; i < 5000; i++) {
      const payload = answer(DHCP.offer, discover!.xid, MAC, ADDRESS, grant({ 121: [24, 10, 0] }));
      for (let n = random.below(4); n >= 0; n--)
        payload[random.below(payload.length)] = random.below(256);
      const cutAt = random.oneIn(4) ? random.below(payload.length) : payload.length;
      const to = { mac: 0xffffffffffff, ip: 0xffffffff, port: 68 };
      stage.queue.inject(udpFrame(SERVER, to, payload.slice(0, cutAt)));
      stage.net.poll(stage.nowMs);
      stage.queue.takeSent();
    }
    assert.equal(stage.queue.framesAvailable, stage.queue.memory.frameCount);
  });
});

describe('a lease over time', () => {
  test('renewed at a half, by unicast, and the times start anew', () => {
    const stage = new Stage().bind();
    stage.net.setNeighbour(SERVER.ip, SERVER.mac);
    assert.deepEqual(stage.run(480_000), []);
    const [renew] = stage.run(30_000);
    assert.deepEqual([renew!.type, renew!.clientAddress, renew!.to], [3, ADDRESS, SERVER.ip]);
    stage.say(DHCP.ack, renew!);
    assert.equal(stage.client.state, 'bound');
    assert.deepEqual(stage.run(480_000), []);
    assert.equal(stage.run(30_000).length, 1);
  });

  test('rebound with anybody at seven eighths', () => {
    const stage = new Stage().bind();
    stage.net.setNeighbour(SERVER.ip, SERVER.mac);
    const asked = stage.run(890_000);
    const rebind = asked.at(-1)!;
    assert.deepEqual([rebind.type, rebind.to, stage.client.state], [3, 0xffffffff, 'rebinding']);
    const other = grant({ [OPTION.server]: quad(parseIpv4('10.0.0.3')) });
    stage.say(DHCP.ack, rebind, other);
    assert.equal(stage.client.state, 'bound');
  });

  test('over: the address is gone, and another is looked for', () => {
    const stage = new Stage().bind();
    stage.net.setNeighbour(SERVER.ip, SERVER.mac);
    const asked = stage.run(1_001_000);
    assert.equal(asked.at(-1)!.type, DHCP.discover);
    assert.deepEqual(stage.leases.at(-1), null);
    stage.queue.inject(arpFrame(1, SERVER, { mac: MAC, ip: ADDRESS }));
    stage.net.poll(stage.nowMs);
    assert.equal(stage.net.counters.arpReplies, 0);
  });

  test('refused while it is renewed: gone at once', () => {
    const stage = new Stage().bind();
    stage.net.setNeighbour(SERVER.ip, SERVER.mac);
    const [renew] = stage.run(510_000);
    stage.say(DHCP.nak, renew!, [[OPTION.server, quad(SERVER.ip)]]);
    assert.equal(stage.leases.at(-1), null);
    assert.equal(stage.client.state, 'selecting');
  });

  test('a lease for ever is never renewed; routes in place of the router', () => {
    const routes = [0, ...quad(SERVER.ip), 16, 10, 77, ...quad(parseIpv4('10.0.0.9'))];
    const stage = new Stage().bind(grant({ [OPTION.leaseSeconds]: quad(0xffffffff), 121: routes }));
    assert.deepEqual(stage.run(10_000), []);
    assert.equal(stage.client.nextDueMs, Number.POSITIVE_INFINITY);
    assert.deepEqual(stage.leases[0]!.routes, [
      { dst: parseIpv4('10.77.0.0'), prefix: 16, gateway: parseIpv4('10.0.0.9') },
    ]);
    assert.equal(stage.leases[0]!.gateway, SERVER.ip);
  });

  test('released, and the port is free', () => {
    const stage = new Stage().bind();
    stage.net.setNeighbour(SERVER.ip, SERVER.mac);
    stage.client.release();
    assert.equal(stage.run(100)[0]!.type, DHCP.release);
    assert.equal(stage.net.udp.socketCount, 0);
    assert.equal(stage.net.nextTimerMs, Number.POSITIVE_INFINITY);
  });
});
