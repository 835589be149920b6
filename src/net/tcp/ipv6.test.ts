/** TCP over IPv6, two stacks over a wire in memory: whole conversations, listeners of both families, what ICMPv6 says. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PEER, US } from '../../../test/support/frames.ts';
import { icmp6Frame, PEER6, PEER6_GLOBAL, US6, US6_GLOBAL } from '../../../test/support/frames6.ts';
import { Random } from '../../../test/support/random.ts';
import { End, type PairOptions, TcpPair } from '../../../test/support/tcp-pair.ts';
import { formatIpv4, parseIpv6 } from '../../base/address.ts';
import type { ArrakisError } from '../../base/errors.ts';
import { TCP_END, TCP_STATE, type TcpConnection, type TcpListener } from './api.ts';

const PORT = 80;
const DESTINATION_UNREACHABLE = 1;
const PACKET_TOO_BIG = 2;
const PORT_UNREACHABLE = 4;

/** Two stacks with a link-local and a global address each, in use at once. */
function pairOf(options: PairOptions = {}): TcpPair {
  const ipv6 = (ip: string) => ({
    addresses: [{ address: parseIpv6(ip), prefix: 64 }],
    dadTransmits: 0,
    autoconfigure: false,
  });
  const pair = new TcpPair({
    ...options,
    a: { ipv6: ipv6(US6_GLOBAL.ip), ...options.a },
    b: { ipv6: ipv6(PEER6_GLOBAL.ip), ...options.b },
  });
  pair.run(2000);
  return pair;
}

interface Listening {
  readonly listener: TcpListener;
  readonly servers: End[];
}

function listenAt(pair: TcpPair, address?: string, side: 'a' | 'b' = 'b'): Listening {
  const servers: End[] = [];
  const queue = side === 'a' ? pair.queueA : pair.queueB;
  const listener = pair[side].tcp.listen({
    port: PORT,
    ...(address === undefined ? {} : { address }),
    onConnection: (connection) => {
      const server = new End(queue.memory.u8);
      server.connection = connection;
      servers.push(server);
      return server;
    },
  });
  return { listener, servers };
}

function call(pair: TcpPair, address: string): End {
  const client = new End(pair.queueA.memory.u8);
  client.connection = pair.a.tcp.connect({ address, port: PORT, handlers: client });
  return client;
}

/** A connection from `a`, established; and the frames that both had before. */
function established(options: PairOptions = {}, address = PEER6_GLOBAL.ip) {
  const pair = pairOf(options);
  const { servers } = listenAt(pair);
  const client = call(pair, address);
  pair.run(20_000, () => client.isOpen && servers.length > 0);
  assert.ok(client.isOpen);
  return { pair, client, server: servers[0]!, connection: client.connection! };
}

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
const say = (connection: TcpConnection, text: string): void => {
  assert.equal(connection.write(bytesOf(text), 0, text.length), text.length);
};

describe('a conversation over IPv6', () => {
  test('hello, then one end closes, the other speaks on, and both end in order', () => {
    const { pair, client, server, connection } = established();
    assert.equal(connection.isIpv6, true);
    assert.equal(connection.localAddress, US6_GLOBAL.ip);
    assert.equal(connection.remoteAddress, PEER6_GLOBAL.ip);
    // 1,500 bytes, less IPv6's header, TCP's, and the timestamps.
    assert.equal(connection.info.mss, 1500 - 40 - 20 - 12);
    say(connection, 'hello');
    connection.end();
    pair.settle();
    assert.equal(server.text, 'hello');
    assert.deepEqual(server.events, ['end']);
    say(server.connection!, 'goodbye');
    pair.settle();
    assert.equal(client.text, 'goodbye');
    server.connection!.end();
    pair.run(100);
    assert.deepEqual([client.closed, server.closed], [TCP_END.closed, TCP_END.closed]);
    pair.run(61_000);
    assert.equal(pair.a.tcp.connectionCount + pair.b.tcp.connectionCount, 0);
    pair.assertNothingLost();
  });

  test('between link-local addresses', () => {
    const { connection } = established({}, PEER6.ip);
    assert.deepEqual([connection.localAddress, connection.remoteAddress], [US6.ip, PEER6.ip]);
  });

  test('a port that nobody has refuses', () => {
    const pair = pairOf();
    const client = call(pair, PEER6_GLOBAL.ip);
    pair.run(1000);
    assert.equal(client.closed, TCP_END.refused);
    assert.equal(pair.a.tcp.connectionCount, 0);
    pair.assertNothingLost();
  });

  test('where there is no way, and to many: nobody is called', () => {
    const pair = pairOf();
    for (const address of ['2001:db8:ffff::5', 'ff02::1', '::', 'fe80::1%eth0']) {
      assert.throws(
        () => call(pair, address),
        (error: ArrakisError) => error.code === 'ARK_BAD_ARGUMENT',
        address,
      );
    }
    const ipv4 = new TcpPair();
    assert.throws(() => call(ipv4, PEER6.ip), /no way to/);
  });

  test('with ourselves, by ::1 and by our own address', () => {
    for (const address of ['::1', US6_GLOBAL.ip]) {
      const pair = pairOf();
      const { servers } = listenAt(pair, '::', 'a');
      const client = call(pair, address);
      pair.run(1000, () => client.isOpen && servers.length > 0);
      say(client.connection!, 'hello');
      say(servers[0]!.connection!, 'goodbye');
      pair.run(1000);
      assert.deepEqual([servers[0]!.text, client.text], ['hello', 'goodbye'], address);
      assert.equal(client.connection!.localAddress, address);
      assert.equal(pair.b.counters.rxTcp, 0, 'nothing left the host');
      client.connection!.abort();
      pair.assertNothingLost();
    }
  });

  test('a fifth of a megabyte over a bad wire', () => {
    const total = 200_000;
    const random = new Random(6);
    const rates = { drop: 0.03, duplicate: 0.03, reorder: 0.1, corrupt: 0.02, truncate: 0.01 };
    const faults = { random: () => random.uint32() / 2 ** 32, ...rates };
    const { pair, client, server, connection } = established({ faults });
    const bytes = Uint8Array.from({ length: total }, (_, i) => (i ^ (i >>> 8) ^ (i >>> 16)) & 255);
    let at = 0;
    client.onDrain = (c) => {
      at += c.write(bytes, at, total);
      if (at === total) c.end();
    };
    client.onDrain(connection);
    pair.run(3_600_000, () => server.bytes === total);
    assert.ok(Buffer.concat(server.chunks).equals(Buffer.from(bytes)));
    assert.ok(pair.a.counters.retransmits > 0);
    connection.abort();
    server.connection!.abort();
    pair.assertNothingLost();
  });
});

describe('listeners of both families', () => {
  const bothFamilies = (pair: TcpPair): End[] => {
    const clients = [call(pair, PEER6_GLOBAL.ip), call(pair, formatIpv4(PEER.ip))];
    pair.run(5000, () => clients.every(({ isOpen, closed }) => isOpen || closed !== null));
    return clients;
  };

  test('`::`, and no address at all, take both', () => {
    for (const address of ['::', undefined]) {
      const pair = pairOf();
      const { servers } = listenAt(pair, address);
      assert.ok(bothFamilies(pair).every(({ isOpen }) => isOpen));
      const remote = servers.map(({ connection }) => connection!.remoteAddress).sort();
      assert.deepEqual(remote, [formatIpv4(US.ip), US6_GLOBAL.ip]);
      assert.throws(
        () => listenAt(pair, '0.0.0.0'),
        (error: ArrakisError) => error.code === 'ARK_IN_USE',
      );
    }
  });

  test('0.0.0.0 takes IPv4 only, one address only itself', () => {
    const any = pairOf();
    listenAt(any, '0.0.0.0');
    assert.deepEqual(
      bothFamilies(any).map(({ closed }) => closed),
      [TCP_END.refused, null],
    );
    const one = pairOf();
    listenAt(one, PEER6_GLOBAL.ip);
    const other = call(one, PEER6.ip);
    assert.deepEqual(
      bothFamilies(one).map(({ closed }) => closed),
      [null, TCP_END.refused],
    );
    assert.equal(other.closed, TCP_END.refused);
    assert.throws(() => listenAt(one, '2001:db8::77'), /does not have/);
  });
});

describe('what ICMPv6 and neighbours say', () => {
  /** What `a` has sent and `b` not yet seen; the first frame. */
  function takeSent(pair: TcpPair): Uint8Array {
    const frames = new Uint32Array(64);
    const lengths = new Uint16Array(64);
    pair.a.poll(pair.nowMs);
    const count = pair.queueB.rxBatch(frames, lengths, 64);
    const sent = pair.queueB.memory.u8.slice(frames[0]!, frames[0]! + lengths[0]!);
    for (let i = 0; i < count; i++) pair.queueB.free(frames[i]!);
    assert.ok(count > 0);
    return sent;
  }

  /** `a` hears an error about `sent`. */
  function tell(pair: TcpPair, sent: Uint8Array, type: number, code: number, word: number): void {
    const body = [0, 0, 0, 0, ...sent.subarray(14, 14 + 1232)];
    body.splice(0, 4, word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255);
    const bytes = icmp6Frame(PEER6_GLOBAL, US6_GLOBAL, type, code, Uint8Array.from(body));
    const { queueB } = pair;
    const frame = queueB.alloc();
    queueB.memory.u8.set(bytes, frame);
    assert.equal(queueB.txBatch(Uint32Array.of(frame), Uint16Array.of(bytes.length), 1), 1);
    queueB.kick();
    pair.a.poll(pair.nowMs);
  }

  test('a port unreachable refuses who is still calling, and not by a guess', () => {
    const pair = pairOf();
    pair.a.ipv6.setNeighbour(parseIpv6(PEER6_GLOBAL.ip), PEER6.mac);
    const client = call(pair, PEER6_GLOBAL.ip);
    const syn = takeSent(pair);
    const guess = syn.slice();
    guess[14 + 40 + 4]! ^= 1;
    tell(pair, guess, DESTINATION_UNREACHABLE, PORT_UNREACHABLE, 0);
    assert.equal(client.closed, null);
    assert.equal(pair.a.counters.tcpIcmpIgnored, 1);
    tell(pair, syn, DESTINATION_UNREACHABLE, PORT_UNREACHABLE, 0);
    assert.equal(client.closed, TCP_END.refused);
  });

  test('a packet too big makes segments smaller, and what was lost comes', () => {
    const { pair, server, connection } = established();
    const bytes = new Uint8Array(5000).fill(7);
    assert.equal(connection.write(bytes, 0, bytes.length), bytes.length);
    const sent = takeSent(pair);
    assert.equal(sent.length, 1514);
    tell(pair, sent, PACKET_TOO_BIG, 0, 1280);
    assert.equal(connection.info.mss, 1280 - 40 - 20 - 12);
    assert.equal(pair.a.counters.tcpIcmpErrors, 1);
    pair.run(10_000, () => server.bytes === bytes.length);
    assert.equal(server.bytes, bytes.length);
    assert.equal(pair.a.counters.txTooLong, 0);
  });

  test('acknowledgements keep the neighbour reachable: nobody asks for it again', () => {
    const { pair, connection } = established();
    const asked = pair.a.counters.ndSolicits;
    for (let i = 0; i < 100; i++) {
      say(connection, 'tick');
      pair.run(1000);
    }
    assert.equal(pair.a.ipv6.neighbourState(parseIpv6(PEER6_GLOBAL.ip)), 'reachable');
    assert.equal(pair.a.counters.ndSolicits, asked);
  });

  test('the interface is closed: the peer hears of it', () => {
    const { pair, client, server } = established();
    pair.a.close();
    assert.equal(client.closed, TCP_END.gone);
    pair.b.poll(pair.nowMs);
    assert.equal(server.closed, TCP_END.reset);
    assert.equal(client.connection!.state, TCP_STATE.closed);
  });
});
