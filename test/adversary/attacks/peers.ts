/** A hostile peer on a channel: acts for peers.test.ts. It writes into the rings whatever it likes. */
import type { EventOf, ReplyOf } from '../../../src/control/protocol.ts';
import { closeAll, setNonBlocking } from '../../../src/ffi/fd.ts';
import { type Mapping, mapShared } from '../../../src/ffi/memory.ts';
import { ringPipe } from '../../../src/ffi/pipe.ts';
import { FRAME, tagOf } from '../../../src/message/frame.ts';
import {
  DATA,
  HEAD,
  linkBytes,
  RECORD_HEADER,
  ringBytes,
  SKIP,
  TAIL,
} from '../../../src/message/layout.ts';
import { Random } from '../../support/random.ts';
import { sleep } from '../../support/until.ts';
import { Control } from './control.ts';

const LENGTH_AFTER = 8;

/** One half of a connection, as bare memory. */
class RawHalf {
  readonly words: Int32Array;
  readonly bytes: Buffer;
  readonly capacity: number;
  readonly #mapping: Mapping;
  readonly #fds: readonly number[];
  /** Where the ring begins in which this side writes, and that in which it reads. */
  readonly #out: number;
  readonly #in: number;
  #tail = 0;

  /** `side` 1 connected, 0 listened. Owns `fds`: memory, own bell, the peer's. */
  constructor(
    half: Pick<ReplyOf<'endpoint.connect'>, 'ringBytes'>,
    fds: readonly number[],
    side: 0 | 1,
  ) {
    this.capacity = half.ringBytes;
    this.#mapping = mapShared(fds[0]!, linkBytes(this.capacity));
    this.#fds = fds;
    this.words = new Int32Array(this.#mapping.buffer);
    this.bytes = Buffer.from(this.#mapping.buffer);
    const second = ringBytes(this.capacity);
    this.#out = side === 0 ? 0 : second;
    this.#in = side === 0 ? second : 0;
  }

  /** Write a record, with a length of its own choice, and publish it. */
  record(tag: number, payload: Uint8Array, length = payload.length): void {
    const at = this.#out + DATA + (this.#tail & (this.capacity - 1));
    this.words[at / 4] = length;
    this.words[at / 4 + 1] = tag;
    this.bytes.set(payload, at + RECORD_HEADER);
    const whole = RECORD_HEADER + payload.length;
    this.show(this.#tail + ((whole + LENGTH_AFTER - 1) & -LENGTH_AFTER));
  }

  /** Say that so much was written. */
  show(tail: number): void {
    this.#tail = tail;
    Atomics.store(this.words, (this.#out + TAIL) / 4, tail | 0);
    this.ring();
  }

  /** Say that so much was read. */
  read(head: number): void {
    Atomics.store(this.words, (this.#in + HEAD) / 4, head | 0);
    this.ring();
  }

  /** What the peer has taken of what this side wrote, and what it has written itself. */
  get taken(): number {
    return Atomics.load(this.words, (this.#out + HEAD) / 4);
  }

  get offered(): number {
    return Atomics.load(this.words, (this.#in + TAIL) / 4);
  }

  /** Of the first message that the peer sent. */
  get firstTag(): number {
    return this.words[(this.#in + DATA) / 4 + 1]!;
  }

  ring(): void {
    ringPipe(this.#fds[2]!);
  }

  /** Ring as fast as it goes. The pipe is full most of the time. */
  async ringFor(ms: number): Promise<void> {
    setNonBlocking(this.#fds[2]!);
    for (const end = performance.now() + ms; performance.now() < end; ) {
      for (let n = 0; n < 100; n++) this.ring();
      await sleep(0);
    }
  }

  close(): void {
    this.#mapping.release();
    closeAll(this.#fds);
  }
}

const text = (value: string): Buffer => Buffer.from(value);
const request = (half: RawHalf, id: number, payload: Uint8Array): void =>
  half.record(tagOf(FRAME.request, id), payload);

/** Requests of `bytes` until the ring is full and the peer takes no more. */
async function pour(half: RawHalf, bytes: number, ms: number): Promise<void> {
  const payload = text(JSON.stringify('x'.repeat(bytes)));
  // Divides the ring: no record comes to lie across its end.
  const size = 1 << Math.ceil(Math.log2(RECORD_HEADER + payload.length));
  const padded = Buffer.concat([payload, Buffer.alloc(size - RECORD_HEADER - payload.length, ' ')]);
  let sent = 0;
  for (const end = performance.now() + ms; performance.now() < end; ) {
    if (sent - half.taken + size <= half.capacity) {
      request(half, 1 + ((sent / size) % 100_000), padded);
      sent += size;
    } else await sleep(1);
  }
}

type PeerAttack = (half: RawHalf) => void | Promise<void>;

/** By one who connected to a listener that answers with what it was asked. */
const AS_CLIENT: Readonly<Record<string, PeerAttack>> = {
  'a position past the ring': (half) => half.show(half.capacity + 8),
  'a position that runs backwards': (half) => half.show(-8),
  'a position far away': (half) => half.show(0x7fff_fff8),
  'a position between records': (half) => half.show(3),
  'a length that no ring has': (half) => half.record(0, text('"x"'), 0x7fff_ffff),
  'a length below zero': (half) => half.record(0, text('"x"'), -2),
  'a length of more than was published': (half) => half.record(0, text('"x"'), 500),
  'a length of more than a message': (half) => {
    half.record(0, Buffer.alloc(half.capacity / 2 + 8), half.capacity / 2 + 8);
  },
  'a skip over what was not published': (half) => half.record(0, text('"x"'), SKIP),
  'a request that is no JSON': (half) => request(half, 1, text('{"a":')),
  'a message that is no text': (half) => half.record(0, Buffer.from([0xff, 0xfe, 0x00])),
  'an empty request': (half) => request(half, 1, Buffer.alloc(0)),
  'answers that are never read': (half) => pour(half, 900, 3000),
  async 'a reader that is where nothing was sent'(half) {
    half.read(half.capacity / 2 + 4);
    await pour(half, 900, 3000);
  },
  'a text that nests without end': (half) => {
    request(half, 1, text('['.repeat(15_000) + ']'.repeat(15_000)));
  },
  async 'kinds and numbers that nobody has'(half) {
    for (let tag = 2; tag < 400; tag++) {
      if ((tag & 15) !== FRAME.request) half.record(tag, text('null '));
    }
    await sleep(100);
  },
  async 'a bell that never stops'(half) {
    await half.ringFor(500);
  },
  async 'noise all over the memory'(half) {
    const random = new Random(7);
    for (let n = 0; n < 200; n++) {
      for (let i = 0; i < 2000; i++) half.words[random.below(half.words.length)] = random.uint32();
      half.ring();
      await sleep(1);
    }
  },
};

/** By one who listens, to what it is asked first. */
const AS_SERVER: Readonly<Record<string, PeerAttack>> = {
  'an answer that is no JSON': (half) =>
    half.record((half.firstTag & -16) | FRAME.response, text('{')),
  'an error that is none': (half) => half.record((half.firstTag & -16) | FRAME.error, text('7')),
  'items where an answer is due': (half) =>
    half.record((half.firstTag & -16) | FRAME.item, text('1')),
  'the end of a stream that was not asked for': (half) => {
    half.record((half.firstTag & -16) | FRAME.end, Buffer.alloc(0));
  },
  'an unknown kind of answer': (half) => half.record((half.firstTag & -16) | 15, text('1')),
  'a position past the ring': (half) => half.show(half.capacity + 8),
  'an answer to somebody else': (half) => half.record(tagOf(FRAME.response, 77), text('1')),
  'nothing at all': () => {},
};

export const CLIENT_ATTACKS = Object.keys(AS_CLIENT);
export const SERVER_ATTACKS = Object.keys(AS_SERVER);

/** Connect to `path` and do one of AS_CLIENT. The domain that did it. */
async function attackListener({ path, attack }: { path: string; attack: string }): Promise<number> {
  const control = await Control.open();
  const { reply, fds } = await control.channel.request('endpoint.connect', { path });
  const half = new RawHalf(reply, fds, 1);
  await AS_CLIENT[attack]!(half);
  await sleep(20);
  half.close();
  control.close();
  return control.domain;
}

/** Connect to `path`, write half a message, and stay. The domain. */
async function writeHalf({ path }: { path: string }): Promise<number> {
  const control = await Control.shared();
  const { reply, fds } = await control.channel.request('endpoint.connect', { path });
  const half = new RawHalf(reply, fds, 1);
  request(half, 1, text('"whole"'));
  const at = ringBytes(half.capacity) + DATA + 64;
  half.words[at / 4] = 100;
  half.bytes.write('"never', at + RECORD_HEADER);
  return control.domain;
}

/** Listen at `path`; whoever connects first is treated to one of AS_SERVER once it has asked something. */
async function listenBadly({ path, attack }: { path: string; attack: string }): Promise<void> {
  const control = await Control.open((name, body, fds) => {
    if (name !== 'endpoint.connected') return false;
    const half = new RawHalf(body as EventOf<'endpoint.connected'>, fds, 0);
    void (async () => {
      while (half.offered === 0) await sleep(1);
      await AS_SERVER[attack]!(half);
    })();
    return true;
  });
  await control.ask('endpoint.create', { path });
}

export const peerActs = { attackListener, writeHalf, listenBadly };
