/** Two stacks on one address, as two threads have it: the first hears ARP, the second hears of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4, parseMac } from '../base/address.ts';
import { createPipe } from '../device/pipe.ts';
import { NetInterface } from './interface.ts';
import { HEARD, NeighbourRing, shareNeighbours } from './neighbours.ts';
import { UDP_PAYLOAD_OFFSET } from './udp.ts';

const SERVER = { mac: parseMac('02:00:00:00:00:02'), address: parseIpv4('10.0.0.2'), prefix: 24 };
const PEER = { mac: parseMac('02:00:00:00:00:01'), address: parseIpv4('10.0.0.1'), prefix: 24 };

/** A peer on each of two wires, as one station; the wires are the queue pairs of the server. */
function start() {
  const wires = [createPipe({ frameCount: 1024 }), createPipe({ frameCount: 1024 })] as const;
  const peers = wires.map(({ a }) => new NetInterface({ queue: a, ...PEER }));
  const shares = shareNeighbours(2);
  const threads = wires.map(
    ({ b }, i) => new NetInterface({ queue: b, ...SERVER, neighbours: shares[i]! }),
  );
  const send = (from: NetInterface, to: number, wire: 0 | 1, end: 'a' | 'b'): void => {
    const frame = from.udp.alloc();
    wires[wire][end].memory.u8[frame + UDP_PAYLOAD_OFFSET] = 1;
    from.udp.sendTo(frame, 1, 7, to, 7);
  };
  const close = (): void => {
    for (const net of [...peers, ...threads]) net.close();
  };
  return { peers, threads, send, close };
}

test('what asks the first thread is a neighbour of the second', () => {
  const { peers, threads, send, close } = start();
  send(peers[0]!, SERVER.address, 0, 'a');
  for (let i = 0; i < 3; i++) for (const net of [peers[0]!, ...threads]) net.poll(i);
  assert.equal(threads[0]!.neighbourState(PEER.address), 'reachable');
  assert.equal(threads[1]!.neighbourState(PEER.address), 'reachable');
  assert.equal(threads[1]!.counters.arpRequests, 0, 'without asking itself');
  close();
});

test('the second thread asks by its own pair, and its frame leaves when the first has heard', () => {
  const { peers, threads, send, close } = start();
  const got: number[] = [];
  peers[1]!.udp.bind(7, (_frame, _at, length) => got.push(length));
  send(threads[1]!, PEER.address, 1, 'b');
  threads[1]!.poll(0);
  assert.equal(threads[1]!.counters.arpRequests, 1);
  assert.equal(threads[1]!.neighbourState(PEER.address), 'incomplete');
  assert.ok(threads[1]!.nextTimerMs <= 1, 'it looks again soon: no doorbell will ring');
  // The answer comes to the first pair: here as a request of the same station.
  send(peers[0]!, SERVER.address, 0, 'a');
  for (let i = 1; i < 4; i++) for (const net of [...peers, ...threads]) net.poll(i);
  assert.equal(threads[1]!.neighbourState(PEER.address), 'reachable');
  assert.equal(threads[1]!.nextTimerMs, Number.POSITIVE_INFINITY);
  assert.deepEqual(got, [1]);
  close();
});

test('an unsolicited answer teaches the second thread nothing', () => {
  const shares = shareNeighbours(2);
  assert.ok('tells' in shares[0]! && 'hears' in shares[1]!);
  const wire = createPipe({ frameCount: 1024 });
  const net = new NetInterface({ queue: wire.b, ...SERVER, neighbours: shares[1]! });
  new NeighbourRing(shares[0].tells[0]!).put(PEER.address, 0x0200, 1, HEARD.reply);
  net.poll(0);
  assert.equal(net.neighbourState(PEER.address), 'free');
  net.close();
});

test('a ring keeps order, and a full one refuses what is new', () => {
  const [first, second] = shareNeighbours(2) as [
    { tells: readonly SharedArrayBuffer[] },
    { hears: SharedArrayBuffer },
  ];
  const writer = new NeighbourRing(first.tells[0]!);
  const reader = new NeighbourRing(second.hears);
  assert.equal(reader.take(), false);
  for (let round = 0; round < 3; round++) {
    let put = 0;
    while (writer.put(put, put + 1, -put, HEARD.request)) put++;
    assert.equal(put, 64);
    for (let i = 0; i < put; i++) {
      assert.ok(reader.take());
      const { ip, macHi, macLo, heard } = reader;
      assert.deepEqual([ip, macHi, macLo, heard], [i, i + 1, i === 0 ? 0 : -i, HEARD.request]);
    }
    assert.equal(reader.take(), false);
  }
});
