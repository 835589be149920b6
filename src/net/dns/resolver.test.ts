/** The resolver against a server that does what the test says. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import dnsPacket, { type Answer as DnsRecord, type Packet } from 'dns-packet';
import { FakeQueue } from '../../../test/support/fake-queue.ts';
import { udpFrame, viewOfBytes } from '../../../test/support/frames.ts';
import { Random } from '../../../test/support/random.ts';
import { parseIpv4 } from '../../base/address.ts';
import { NetInterface } from '../interface.ts';
import { Resolver } from './resolver.ts';

const US = { mac: 0x020000000002, ip: parseIpv4('10.0.0.2') };
const SERVERS = [1, 3].map((n) => ({ mac: 0x020000000000 + n, ip: parseIpv4(`10.0.0.${n}`) }));

interface Query {
  readonly server: number;
  readonly port: number;
  readonly id: number;
  readonly name: string;
  readonly type: string;
}

class Stage {
  readonly queue = new FakeQueue();
  readonly net: NetInterface;
  readonly resolver: Resolver;
  nowMs = 0;

  constructor(servers = 1, seed = 1) {
    const generator = new Random(seed);
    const { queue } = this;
    this.net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24 });
    for (const server of SERVERS) this.net.setNeighbour(server.ip, server.mac);
    this.resolver = new Resolver({
      net: this.net,
      memory: queue.memory.u8,
      servers: SERVERS.slice(0, servers).map(({ ip }) => ip),
      random: () => generator.uint32(),
    });
  }

  /** Queries sent within `ms`. */
  run(ms = 10): Query[] {
    const queries: Query[] = [];
    for (const end = this.nowMs + ms; this.nowMs < end; this.nowMs += 10) {
      this.net.poll(this.nowMs);
      for (const frame of this.queue.takeSent()) {
        const view = viewOfBytes(frame);
        if (view.getUint16(36) !== 53) continue;
        const packet = dnsPacket.decode(Buffer.from(frame.subarray(42)));
        const { name, type } = packet.questions![0]!;
        const server = view.getUint32(30) - parseIpv4('10.0.0.0');
        queries.push({ server, port: view.getUint16(34), id: packet.id!, name, type });
      }
    }
    return queries;
  }

  receive(query: Query, payload: Uint8Array, from = query.server, fromPort = 53): void {
    const server = { ...SERVERS.find(({ mac }) => mac % 16 === from)!, port: fromPort };
    this.queue.inject(udpFrame(server, { ...US, port: query.port }, payload));
    this.net.poll(this.nowMs);
  }

  answer(query: Query, answers: DnsRecord[], more: Packet & { rcode?: number } = {}): Uint8Array {
    const questions = [{ name: query.name, type: query.type as 'A' }];
    const { rcode = 0, flags = 0, ...rest } = more;
    return dnsPacket.encode({
      type: 'response',
      id: query.id,
      flags: flags | rcode,
      questions,
      answers,
      ...rest,
    });
  }
}

const a = (name: string, data: string, ttl = 60): DnsRecord => ({ type: 'A', name, data, ttl });
const cname = (name: string, data: string, ttl = 60): DnsRecord => ({
  type: 'CNAME',
  name,
  data,
  ttl,
});
const soa = (minimum: number): DnsRecord => ({
  type: 'SOA',
  name: 'example',
  ttl: 900,
  data: {
    mname: 'ns.example',
    rname: 'x.example',
    serial: 1,
    refresh: 1,
    retry: 1,
    expire: 1,
    minimum,
  },
});
const code = (wanted: string) => (error: unknown) => (error as { code: string }).code === wanted;

describe('answers', () => {
  test('addresses, through aliases, remembered as long as the shortest says', async () => {
    const stage = new Stage();
    const first = stage.resolver.resolve('WWW.Example.');
    const again = stage.resolver.resolve('www.example');
    const [query, ...more] = stage.run();
    assert.equal(more.length, 0, 'one query for both');
    const records = [
      cname('www.example', 'b.example', 30),
      a('other.example', '6.6.6.6'),
      a('b.example', '192.0.2.1', 100),
      a('b.example', '192.0.2.2', 200),
    ];
    stage.receive(query!, stage.answer(query!, records));
    assert.deepEqual(await first, ['192.0.2.1', '192.0.2.2']);
    assert.deepEqual(await again, ['192.0.2.1', '192.0.2.2']);
    stage.run(29_000);
    assert.deepEqual(await stage.resolver.resolve('www.example'), ['192.0.2.1', '192.0.2.2']);
    stage.run(2_000);
    const anew = stage.resolver.resolve('www.example');
    const [second] = stage.run();
    stage.receive(second!, stage.answer(second!, [a('www.example', '192.0.2.3')]));
    assert.deepEqual(await anew, ['192.0.2.3']);
    assert.equal(stage.net.udp.socketCount, 0);
  });

  test('an alias alone is looked up in turn; a ring of them ends', async () => {
    const stage = new Stage();
    const found = stage.resolver.resolve('one.example', 6);
    const [query] = stage.run();
    assert.equal(query!.type, 'AAAA');
    stage.receive(query!, stage.answer(query!, [cname('one.example', 'two.example')]));
    const [next] = stage.run();
    assert.equal(next!.name, 'two.example');
    const record: DnsRecord = { type: 'AAAA', name: 'two.example', data: '2001:db8::1', ttl: 5 };
    stage.receive(next!, stage.answer(next!, [record]));
    assert.deepEqual(await found, ['2001:db8::1']);
    const lost = stage.resolver.resolve('ring.example');
    const refused = assert.rejects(lost, code('ARK_NOT_FOUND'));
    let asked = 0;
    for (let queries = stage.run(); queries.length > 0; queries = stage.run()) {
      asked++;
      const [one] = queries;
      const other = one!.name === 'ring.example' ? 'other.example' : 'ring.example';
      stage.receive(one!, stage.answer(one!, [cname(one!.name, other)]));
    }
    await refused;
    assert.ok(asked < 12, `${asked} queries`);
  });

  test('no such name, no such record: said once, and remembered as its zone says', async () => {
    for (const rcode of [3, 0]) {
      const stage = new Stage();
      const refused = assert.rejects(stage.resolver.resolve('no.example'), code('ARK_NOT_FOUND'));
      const [query] = stage.run();
      stage.receive(query!, stage.answer(query!, [], { rcode, authorities: [soa(20)] }));
      await refused;
      stage.run(19_000);
      await assert.rejects(stage.resolver.resolve('no.example'), code('ARK_NOT_FOUND'));
      assert.equal(stage.run().length, 0);
      stage.run(2_000);
      stage.resolver.resolve('no.example').catch(() => {});
      assert.equal(stage.run().length, 1);
      stage.resolver.close();
    }
  });

  test('a truncated answer', async () => {
    const stage = new Stage();
    const refused = assert.rejects(stage.resolver.resolve('x.example'), code('ARK_UNSUPPORTED'));
    const [query] = stage.run();
    stage.receive(query!, stage.answer(query!, [], { flags: dnsPacket.TRUNCATED_RESPONSE }));
    await refused;
  });

  test('an address is its own; what is no name is refused', async () => {
    const stage = new Stage();
    assert.deepEqual(await stage.resolver.resolve('192.0.2.7'), ['192.0.2.7']);
    for (const name of ['', 'a..b', `${'x'.repeat(64)}.example`, 'a b', `${'ab.'.repeat(90)}c`]) {
      await assert.rejects(stage.resolver.resolve(name), code('ARK_BAD_ARGUMENT'));
    }
  });
});

describe('servers', () => {
  test('silence: each in turn, with growing patience, and then no more', async () => {
    const stage = new Stage(2);
    const refused = assert.rejects(stage.resolver.resolve('x.example'), code('ARK_TIMEOUT'));
    const queries = stage.run(20_000);
    assert.deepEqual(
      queries.map(({ server }) => server),
      [1, 3, 1, 3, 1, 3],
    );
    await refused;
    assert.equal(new Set(queries.map(({ id }) => id)).size, 6, 'another identification each');
    assert.equal(new Set(queries.map(({ port }) => port)).size, 6, 'another port each');
    assert.equal(stage.net.udp.socketCount, 0);
  });

  test('one that fails: the next one at once', async () => {
    const stage = new Stage(2);
    const found = stage.resolver.resolve('x.example');
    const [query] = stage.run();
    stage.receive(query!, stage.answer(query!, [], { rcode: 2 }));
    const [next] = stage.run();
    assert.equal(next!.server, 3);
    stage.receive(next!, stage.answer(next!, [a('x.example', '192.0.2.1')]));
    assert.deepEqual(await found, ['192.0.2.1']);
  });
});

describe('what is not believed', () => {
  const lies: [string, (stage: Stage, query: Query, good: Uint8Array) => void][] = [
    [
      'another identification',
      (s, q) => s.receive(q, s.answer({ ...q, id: q.id ^ 1 }, [a(q.name, '6.6.6.6')])),
    ],
    [
      'another question',
      (s, q) => s.receive(q, s.answer({ ...q, name: 'evil.example' }, [a(q.name, '6.6.6.6')])),
    ],
    [
      'another type',
      (s, q) => s.receive(q, s.answer({ ...q, type: 'AAAA' }, [a(q.name, '6.6.6.6')])),
    ],
    ['another server', (s, q, good) => s.receive(q, good, 3)],
    ['another port of the server', (s, q, good) => s.receive(q, good, 1, 5353)],
    [
      'a query',
      (s, q, good) =>
        s.receive(
          q,
          good.map((byte, i) => (i === 2 ? byte & 0x7f : byte)),
        ),
    ],
  ];
  for (const [what, lie] of lies) {
    test(what, async () => {
      const stage = new Stage();
      const found = stage.resolver.resolve('x.example');
      const [query] = stage.run();
      lie(stage, query!, stage.answer(query!, [a('x.example', '6.6.6.6')]));
      stage.receive(query!, stage.answer(query!, [a('x.example', '192.0.2.1')]));
      assert.deepEqual(await found, ['192.0.2.1']);
    });
  }

  test('5,000 answers with nonsense in them: nothing throws, no frame and no socket is lost', async () => {
    const random = new Random(11);
    const stage = new Stage();
    for (let i = 0; i < 5_000; i++) {
      const name = `n${i}.example`;
      const found = stage.resolver.resolve(name).catch(() => []);
      const [query] = stage.run();
      const good = stage.answer(query!, [cname(name, 'b.example'), a('b.example', '192.0.2.1')]);
      const bad = good.slice();
      for (let n = random.below(4); n >= 0; n--)
        bad[2 + random.below(bad.length - 2)] = random.below(256);
      stage.receive(query!, random.oneIn(4) ? bad.slice(0, random.below(bad.length)) : bad);
      stage.receive(query!, good);
      let isDone = false;
      void found.then(() => {
        isDone = true;
      });
      for (let turn = 0; turn < 100 && !isDone; turn++) {
        for (const retry of stage.run(turn === 0 ? 10 : 1000)) {
          stage.receive(retry, stage.answer(retry, [], { rcode: 3 }));
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.ok(isDone);
    }
    assert.equal(stage.net.udp.socketCount, 0);
    assert.equal(stage.queue.framesAvailable, stage.queue.memory.frameCount);
  });
});

test('close ends what is under way', async () => {
  const stage = new Stage();
  const refused = assert.rejects(stage.resolver.resolve('x.example'), code('ARK_GONE'));
  stage.run();
  stage.resolver.close();
  await refused;
  assert.equal(stage.net.udp.socketCount, 0);
  await assert.rejects(stage.resolver.resolve('x.example'), code('ARK_GONE'));
});
