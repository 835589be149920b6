/**
 * The load of `arrakis bench http`: so many connections, each with one request under way, over our own stack. It is the
 * same for every server, and cheaper than any of them: a response is counted, not parsed. All responses of a server are
 * of one length, which the first one tells.
 */
import type { NetInterface, TcpConnection, TcpHandlers } from '../../src/arrakis/index.ts';
import { monotonicMs, monotonicUs32, netTurn } from '../../src/arrakis/index.ts';
import { summarize } from '../stats.ts';
import type { HttpJob, HttpResult } from './job.ts';

const SAMPLES_MAX = 1_000_000;
const HEAD_BYTES_MAX = 4096;
const CONNECT_MS = 15_000;
const OK = Buffer.from('HTTP/1.1 200');

export class HttpLoad {
  readonly #net: NetInterface;
  readonly #u8: Uint8Array;
  readonly #job: HttpJob;
  readonly #relax: () => void;
  readonly #request: Buffer;
  readonly #samples = new Float64Array(SAMPLES_MAX);
  #sampleCount = 0;
  #isCounting = false;
  #responseBytes = 0;
  #requests = 0;
  #failed = 0;
  #open = 0;
  readonly #clients: Client[] = [];

  /** `u8` is the interface's frame memory; `relax` is called when a turn found nothing. */
  constructor(net: NetInterface, u8: Uint8Array, job: HttpJob, relax: () => void) {
    this.#net = net;
    this.#u8 = u8;
    this.#job = job;
    this.#relax = relax;
    const connection = job.keepAlive ? '' : 'Connection: close\r\n';
    const text = `GET ${job.path} HTTP/1.1\r\nHost: ${job.destinationAddress}\r\n${connection}\r\n`;
    this.#request = Buffer.from(text);
  }

  /** Measure. Throws when the server does not answer, or answers anything but 200. */
  run(): HttpResult {
    const { connections, warmupMs, durationMs, keepAlive } = this.#job;
    this.#probe();
    for (let i = 1; i < connections; i++) this.#clients.push(new Client(this));
    // A thousand handshakes at once would be a test of backlogs.
    this.#turnUntil(() => !keepAlive || this.#open === connections, CONNECT_MS);
    this.#turnFor(warmupMs);
    this.#requests = 0;
    this.#isCounting = true;
    const took = this.#turnFor(durationMs);
    this.#isCounting = false;
    for (const client of this.#clients) client.stop();
    return {
      requests: this.#requests,
      requestsPerSecond: this.#requests / (took / 1000),
      rtt: summarize(this.#samples.subarray(0, this.#sampleCount)),
      failed: this.#failed,
      responseBytes: this.#responseBytes,
    };
  }

  /** One request at a time until there was an answer: servers take their time to start. */
  #probe(): void {
    this.#clients.push(new Client(this));
    this.#turnUntil(() => this.#responseBytes > 0, CONNECT_MS);
    if (this.#responseBytes === 0) {
      throw new Error(`no answer from ${this.#job.destinationAddress} within ${CONNECT_MS} ms`);
    }
    this.#failed = 0;
  }

  #turnFor(ms: number): number {
    const from = performance.now();
    this.#turnUntil(() => false, ms);
    return performance.now() - from;
  }

  #turnUntil(isDone: () => boolean, ms: number): void {
    const { turn } = netTurn(this.#net, monotonicMs, monotonicUs32);
    const end = performance.now() + ms;
    for (let i = 0; ; i++) {
      if (turn() === 0) this.#relax();
      if ((i & 63) === 0 && (performance.now() >= end || isDone())) return;
    }
  }

  connect(handlers: TcpHandlers): TcpConnection {
    const { destinationAddress: address, port } = this.#job;
    return this.#net.tcp.connect({ address, port, handlers });
  }

  get keepAlive(): boolean {
    return this.#job.keepAlive;
  }

  opened(): void {
    this.#open++;
  }

  ask(connection: TcpConnection): void {
    connection.noDelay = true;
    connection.write(this.#request, 0, this.#request.length);
  }

  failed(): void {
    this.#failed++;
  }

  /** Bytes that a response has; learnt from the head of the first. -1: more is needed to know. */
  responseBytes(at: number, length: number): number {
    if (this.#responseBytes > 0) return this.#responseBytes;
    const head = Buffer.from(this.#u8.subarray(at, at + Math.min(length, HEAD_BYTES_MAX)));
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return -1;
    const text = head.toString('latin1', 0, end);
    const body = /\r\ncontent-length: *(\d+)/i.exec(text);
    if (!head.subarray(0, OK.length).equals(OK) || body === null) {
      throw new Error(`the server answers: ${text.split('\r\n', 1)[0]}`);
    }
    this.#responseBytes = end + 4 + Number(body[1]);
    return this.#responseBytes;
  }

  answered(microseconds: number): void {
    if (!this.#isCounting) return;
    this.#requests++;
    if (this.#sampleCount < SAMPLES_MAX) this.#samples[this.#sampleCount++] = microseconds;
  }
}

/** One connection after the other, one request after the other. */
class Client implements TcpHandlers {
  readonly #load: HttpLoad;
  #connection: TcpConnection;
  #got = 0;
  #sinceUs = 0;
  #isStopped = false;

  constructor(load: HttpLoad) {
    this.#load = load;
    this.#sinceUs = monotonicUs32();
    this.#connection = load.connect(this);
  }

  onOpen(connection: TcpConnection): void {
    this.#load.opened();
    if (this.#load.keepAlive) this.#sinceUs = monotonicUs32();
    this.#got = 0;
    this.#load.ask(connection);
  }

  onData(connection: TcpConnection, _frame: number, at: number, length: number): void {
    const expected = this.#load.responseBytes(at, length);
    this.#got += length;
    if (expected < 0 || this.#got < expected) return;
    const nowUs = monotonicUs32();
    this.#load.answered((nowUs - this.#sinceUs) | 0);
    this.#got = 0;
    if (this.#isStopped || !this.#load.keepAlive) return;
    this.#sinceUs = nowUs;
    this.#load.ask(connection);
  }

  onEnd(connection: TcpConnection): void {
    connection.end();
  }

  onClose(): void {
    if (this.#isStopped) return;
    if (this.#load.keepAlive || this.#got > 0) this.#load.failed();
    this.#sinceUs = monotonicUs32();
    this.#connection = this.#load.connect(this);
  }

  stop(): void {
    this.#isStopped = true;
    this.#connection.abort();
  }
}
