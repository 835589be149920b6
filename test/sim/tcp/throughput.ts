/** How fast one connection is on a link of a given delay and loss, in virtual time. */
import assert from 'node:assert/strict';
import { formatIpv4 } from '../../../src/base/address.ts';
import type { TcpConnection } from '../../../src/net/tcp/api.ts';
import { Random } from '../../support/random.ts';
import { World } from './world.ts';

export interface Cell {
  /** One way. */
  readonly delayMs: number;
  /** Of each frame from the sender, 0 to 1. */
  readonly loss: number;
}

export const LINK_BYTES_PER_SECOND = 1_250_000;
const FRAME_BYTES = 1514;
/** Payload of a segment with timestamps. */
export const SEGMENT_BYTES = 1448;
/** A queue of a quarter of a second. */
const QUEUE_BYTES = LINK_BYTES_PER_SECOND / 4;
const PORT = 80;
const CHUNK = new Uint8Array(65_536);
/** Not counted: the handshake and the first slow start. */
const WARM_UP_MS = 5000;
const MEASURED_MS = 12_000;

/** What the link carries of payload, in bytes a second. */
export const LINK_PAYLOAD = (LINK_BYTES_PER_SECOND * SEGMENT_BYTES) / FRAME_BYTES;

/**
 * What congestion control should reach, in bytes a second: the average window of CUBIC for random loss (RFC 9438, section
 * 5, figure 6, with C = 0.4 and beta = 0.7), or that of Reno where it is more, each round trip; at most what the link carries.
 */
export function expected({ delayMs, loss }: Cell): number {
  if (loss === 0) return LINK_PAYLOAD;
  const rttS = (2 * delayMs) / 1000;
  const cubic = 1.054 * (rttS / loss) ** 0.75;
  const reno = Math.sqrt(1.5 / loss);
  return Math.min(LINK_PAYLOAD, (Math.max(cubic, reno) * SEGMENT_BYTES) / rttS);
}

/** Bytes a second that arrive. */
export function measure(cell: Cell): number {
  const world = new World(
    {
      faults: {},
      senderFaults: { drop: cell.loss },
      delay: {
        delayMs: cell.delayMs,
        bytesPerSecond: LINK_BYTES_PER_SECOND,
        queueBytesMax: QUEUE_BYTES,
      },
      frames: 4096,
      mtu: 1500,
    },
    new Random(42),
  );
  let received = 0;
  world.b.net.tcp.listen({
    port: PORT,
    onConnection: () => ({
      onData: (_connection, _frame, _at, length) => {
        received += length;
      },
    }),
  });
  const fill = (connection: TcpConnection) => {
    while (connection.write(CHUNK, 0, CHUNK.length) === CHUNK.length);
  };
  const sender = world.a.net.tcp.connect({
    address: formatIpv4(world.b.address.ip),
    port: PORT,
    handlers: { onData: () => {}, onOpen: fill, onDrain: fill },
  });
  const startMs = world.clock.nowMs;
  const at = (ms: number) => {
    // Something always happens: a connection that sends has timers.
    assert.equal(
      world.run(() => world.clock.nowMs >= startMs + ms, startMs + ms + 10_000),
      true,
    );
    return received;
  };
  const before = at(WARM_UP_MS);
  const during = at(WARM_UP_MS + MEASURED_MS) - before;
  sender.abort();
  return (during * 1000) / MEASURED_MS;
}
