/**
 * Memory of an idle connection. `idle.js arrakis N`: N connections between two of our stacks in this process; what the heap
 * and the arrays have grown by, for each of the 2 N ends. `idle.js kernel N`: N connections of node:net over loopback;
 * what the kernel's caches of sockets have grown by, for each of the 2 N sockets (root only). Run with --expose-gc.
 */
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { NetInterface, type TcpHandlers } from '../../src/arrakis/index.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import { createPipe } from '../../src/device/pipe.ts';
import type { IdleResult } from './job.ts';

const PORT = 7;
const PREFIX = 24;
/** Handshakes at a time. */
const BURST = 64;
/** Caches of the kernel that a TCP socket is made of (proc(5), slabinfo). */
const CACHES = /^(TCP|sock_inode_cache|filp|dentry|eventpoll_epi|tw_sock_TCP|tcp_bind_bucket)\s/;

const heapBytes = (): number => {
  (globalThis as { gc?: () => void }).gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

function ofArrakis(count: number): IdleResult {
  const { a, b } = createPipe({ ringSize: 512 });
  const stack = (queue: typeof a, mac: number, address: string): NetInterface =>
    new NetInterface({
      queue,
      mac,
      address: parseIpv4(address),
      prefix: PREFIX,
      secret: Int32Array.of(1, 2, 3, 4),
    });
  const client = stack(a, 0x02_00_00_00_00_01, '10.0.0.1');
  const server = stack(b, 0x02_00_00_00_00_02, '10.0.0.2');
  let open = 0;
  const handlers: TcpHandlers = { onData() {}, onOpen: () => open++ };
  server.tcp.listen({ port: PORT, backlog: BURST, onConnection: () => handlers });
  let nowMs = 1000;
  const before = heapBytes();
  for (let started = 0; started < count; ) {
    for (let i = 0; i < BURST && started < count; i++, started++) {
      client.tcp.connect({ address: '10.0.0.2', port: PORT, handlers });
    }
    const end = nowMs + 5_000;
    while (open < started && nowMs < end) {
      nowMs += 1;
      client.poll(nowMs);
      server.poll(nowMs);
    }
    if (open < started) throw new Error(`${open} of ${started} connections are open`);
  }
  for (let i = 0; i < 500; i++) {
    nowMs += 1;
    client.poll(nowMs);
    server.poll(nowMs);
  }
  const grown = heapBytes() - before;
  const connections = client.tcp.connectionCount + server.tcp.connectionCount;
  return { connections, bytesPerConnection: Math.round(grown / connections) };
}

function slabBytes(): number {
  let bytes = 0;
  for (const line of fs.readFileSync('/proc/slabinfo', 'utf8').split('\n')) {
    if (!CACHES.test(line)) continue;
    const [, active, , size] = line.split(/\s+/);
    bytes += Number(active) * Number(size);
  }
  return bytes;
}

async function ofKernel(count: number): Promise<IdleResult> {
  const accepted: net.Socket[] = [];
  const server = net.createServer((socket) => accepted.push(socket)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const before = slabBytes();
  const clients: net.Socket[] = [];
  while (clients.length < count) {
    const some = Array.from({ length: Math.min(BURST, count - clients.length) }, () =>
      net.connect(port, '127.0.0.1'),
    );
    await Promise.all(some.map((socket) => once(socket, 'connect')));
    clients.push(...some);
  }
  while (accepted.length < count) await new Promise((resolve) => setTimeout(resolve, 10));
  const grown = slabBytes() - before;
  for (const socket of [...clients, ...accepted]) socket.destroy();
  server.close();
  return { connections: 2 * count, bytesPerConnection: Math.round(grown / (2 * count)) };
}

const [whose = 'arrakis', count = '10000'] = process.argv.slice(2);
const result = whose === 'kernel' ? await ofKernel(Number(count)) : ofArrakis(Number(count));
process.stdout.write(`${JSON.stringify(result)}\n`);
