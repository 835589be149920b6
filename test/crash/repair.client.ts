/**
 * A kernel client that counts: `node repair.client.js ADDRESS PORT INTERVAL_MS [TCP_ADDRESS TCP_PORT]`. Sends a numbered
 * datagram every INTERVAL_MS and takes the echoes; over TCP the same, in one connection. When its stdin ends it waits for
 * the last echoes, prints what it counted as JSON, and ends.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import { sleep } from '../support/until.ts';

const LINGER_MS = 700;
const BATCH_MAX = 16;

export interface ClientCounts {
  sent: number;
  received: number;
  duplicated: number;
  reordered: number;
  /** The longest time without an echo. */
  silentMsMax: number;
  tcp: { sent: number; received: number; isOrdered: boolean; error: string } | null;
}

const [address = '', port = '', interval = '', tcpAddress, tcpPort] = process.argv.slice(2);
const counts: ClientCounts = {
  sent: 0,
  received: 0,
  duplicated: 0,
  reordered: 0,
  silentMsMax: 0,
  tcp: null,
};

const seen = new Set<number>();
let last = -1;
let heardMs = performance.now();
const socket = dgram.createSocket('udp4');
socket.on('error', () => {});
socket.on('message', (message) => {
  const number = message.readUInt32LE(0);
  const nowMs = performance.now();
  counts.silentMsMax = Math.max(counts.silentMsMax, nowMs - heardMs);
  heardMs = nowMs;
  if (seen.has(number)) counts.duplicated++;
  else counts.received++;
  if (number < last) counts.reordered++;
  seen.add(number);
  last = Math.max(last, number);
});

let tcp: net.Socket | null = null;
if (tcpPort !== undefined) {
  const state = { sent: 0, received: 0, isOrdered: true, error: '' };
  let rest = '';
  counts.tcp = state;
  tcp = net.connect(Number(tcpPort), tcpAddress);
  tcp.on('error', (error) => {
    state.error = error.message;
  });
  tcp.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      if (Number(line) !== state.received) state.isOrdered = false;
      state.received++;
    }
  });
}

socket.connect(Number(port), address, () => {
  heardMs = performance.now();
  const intervalMs = Number(interval);
  let dueMs = performance.now();
  const timer = setInterval(() => {
    // A process that was not scheduled catches up, a bounded number at a time.
    const nowMs = performance.now();
    for (let n = 0; n < BATCH_MAX && dueMs <= nowMs; n++, dueMs += intervalMs) {
      const message = Buffer.alloc(64);
      message.writeUInt32LE(counts.sent++, 0);
      socket.send(message);
      if (tcp !== null && counts.tcp !== null) tcp.write(`${counts.tcp.sent++}\n`);
    }
    if (dueMs <= nowMs) dueMs = nowMs;
  }, intervalMs);
  process.stdin.on('end', async () => {
    clearInterval(timer);
    await sleep(LINGER_MS);
    process.stdout.write(`${JSON.stringify(counts)}\n`, () => process.exit(0));
  });
  process.stdin.resume();
  process.stdout.write('sending\n');
});
