/** Messages made from the table, some of them wrong, over connections that come and go: the act of fuzz.test.ts. */
import { closeAll, closeFd, setNonBlocking } from '../../../src/ffi/fd.ts';
import { connectUnix, receiveMessage, SOCK_SEQPACKET, sendMessage } from '../../../src/ffi/unix.ts';
import { Random } from '../../support/random.ts';
import { sleep } from '../../support/until.ts';
import { nextMessage, Pool } from './shapes.ts';

const BURST = 32;
const LIFE_MAX = 1500;
const ANSWER_MS_MAX = 30_000;
const FDS_MAX = 12;
const HELLO = Buffer.from('{"id":1,"op":"hello","protocol":1,"name":"fuzz"}');

export interface Fuzzed {
  answers: number;
  ok: number;
  connections: number;
  /** Refusals by code. */
  codes: Record<string, number>;
}

const buffer = Buffer.alloc(1 << 16);

/** One connection: what it sends, and what it makes of the answers. */
class Client {
  readonly #fd: number;
  readonly #pool: Pool;
  readonly #result: Fuzzed;
  sent = 0;
  answers = 0;
  closed = false;

  constructor(pool: Pool, result: Fuzzed) {
    this.#fd = connectUnix(process.env.ARRAKIS_SOCKET!, SOCK_SEQPACKET);
    setNonBlocking(this.#fd);
    this.#pool = pool;
    this.#result = result;
  }

  send(bytes: Uint8Array): void {
    try {
      if (!this.closed && sendMessage(this.#fd, bytes) >= 0) this.sent++;
    } catch {
      this.closed = true;
    }
  }

  drain(): void {
    while (!this.closed) {
      let received: ReturnType<typeof receiveMessage>;
      try {
        received = receiveMessage(this.#fd, buffer, FDS_MAX);
      } catch {
        this.closed = true;
        return;
      }
      if (received === null) return;
      closeAll(received.fds);
      if (received.length === 0) this.closed = true;
      else this.#take(buffer.toString('utf8', 0, received.length));
    }
  }

  close(): void {
    closeFd(this.#fd);
  }

  #take(text: string): void {
    if (text.startsWith('{"event"')) return;
    this.answers++;
    const result = this.#result;
    result.answers++;
    const answer = JSON.parse(text) as { ok: boolean; error?: { code: string } };
    if (answer.ok) {
      result.ok++;
      this.#pool.learn(answer);
    } else {
      const { code } = answer.error!;
      result.codes[code] = (result.codes[code] ?? 0) + 1;
    }
  }
}

/** Until `count` messages are answered. Handles in `known` are among those that are tried. */
async function fuzz(args: { seed: number; count: number; known: number[] }): Promise<Fuzzed> {
  const random = new Random(args.seed);
  const pool = new Pool(random);
  const result: Fuzzed = { answers: 0, ok: 0, connections: 0, codes: {} };
  while (result.answers < args.count) {
    const client = new Client(pool, result);
    result.connections++;
    pool.learn(args.known);
    if (!random.oneIn(20)) client.send(HELLO);
    while (!client.closed && client.sent < LIFE_MAX && result.answers < args.count) {
      for (let n = 0; n < BURST; n++) client.send(nextMessage(random, pool, 2 + random.below(999)));
      const deadline = performance.now() + ANSWER_MS_MAX;
      while (!client.closed && client.answers < client.sent) {
        if (performance.now() > deadline)
          throw new Error(`${client.sent - client.answers} are not answered`);
        client.drain();
        if (client.answers < client.sent) await sleep(0);
      }
    }
    client.close();
  }
  return result;
}

export const fuzzActs = { fuzz };
