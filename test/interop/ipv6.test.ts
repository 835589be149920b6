/**
 * IPv6 of the stack against Linux, through the software NIC and its TAP interface, all in a network namespace of the test's
 * own. A bridge joins the TAP with a second one, at which the test itself plays a router.
 *
 *   stack ── software NIC ── snic0 ══ br0 ══ rtr0 ── frames by hand
 *                                      │
 *                              kernel: ping, dgram
 */
import assert from 'node:assert/strict';
import { type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { parseIpv6, parseMac } from '../../src/base/address.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import { openTap } from '../../src/ffi/tap.ts';
import { formatNetCounters } from '../../src/net/counters.ts';
import { NetInterface } from '../../src/net/interface.ts';
import type { Ipv6Options } from '../../src/net/ipv6/stack.ts';
import { UDP6_PAYLOAD_OFFSET } from '../../src/net/ipv6/udp.ts';
import { TCP_END, type TcpConnection, type TcpHandlers } from '../../src/net/tcp/api.ts';
import { ROUTER6, routerAdvertisement } from '../support/frames6.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { KernelEnd } from './kernel-end.ts';
import { ADDRESSES, Application, SoftNicProcess } from './softnic.harness.ts';
import { Pattern } from './tcp-pattern.ts';

const OURS = '2001:db8::77';
const KERNEL = '2001:db8::fe';
const PREFIX = '2001:db8:1::';
const LINK_LOCAL = 'fe80::aff:fe00:1';
const ECHO = 7;
const PORT = 7000;
const MEGABYTE = 1024 * 1024;
const TALK_MS = 20_000;

/** Our end of a TCP connection: sends a megabyte of the pattern, then FIN, and checks the peer's. */
class OurEnd implements TcpHandlers {
  received = 0;
  isRight = true;
  ended = false;
  closed = -1;
  remote = '';
  readonly #u8: Uint8Array;
  readonly #sending = new Pattern();
  readonly #receiving = new Pattern();
  readonly #chunk = new Uint8Array(16_384);

  constructor(u8: Uint8Array) {
    this.#u8 = u8;
  }

  onOpen(connection: TcpConnection): void {
    this.onDrain(connection);
  }
  onDrain(connection: TcpConnection): void {
    this.remote = connection.remoteAddress;
    while (this.#sending.at < MEGABYTE) {
      const want = Math.min(this.#chunk.length, MEGABYTE - this.#sending.at);
      this.#sending.peek(this.#chunk, want);
      const took = connection.write(this.#chunk, 0, want);
      this.#sending.skip(took);
      if (took < want) return;
    }
    connection.end();
  }
  onData(_connection: TcpConnection, _frame: number, at: number, length: number): void {
    this.isRight &&= this.#receiving.matches(this.#u8, at, length);
    this.received += length;
  }
  onEnd(): void {
    this.ended = true;
  }
  onClose(_connection: TcpConnection, why: number): void {
    this.closed = why;
  }
}

/** Both had everything of the other, and ended in order. */
async function expectDone(
  ours: () => OurEnd | undefined,
  kernel: () => KernelEnd | undefined,
): Promise<void> {
  await until(() => kernel()?.closed === true && (ours()?.closed ?? -1) >= 0, TALK_MS);
  const { error, received, isRight } = kernel()!;
  assert.deepEqual([error, received, isRight], [null, MEGABYTE, true]);
  const { closed, ended, received: got, isRight: isOurs } = ours()!;
  assert.deepEqual([closed, ended, got, isOurs], [TCP_END.closed, true, MEGABYTE, true]);
}

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: 5000 });
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** The same, while this process goes on to serve the stack. */
async function runBeside(
  command: string,
  ...args: string[]
): Promise<{ status: number; text: string }> {
  const options: SpawnOptions = { stdio: ['ignore', 'pipe', 'pipe'], timeout: 10_000 };
  const child = spawn(command, args, options);
  let text = '';
  child.stdout!.on('data', (chunk) => (text += chunk));
  child.stderr!.on('data', (chunk) => (text += chunk));
  const [status] = await once(child, 'close');
  return { status: status ?? -1, text };
}

async function ping(...args: string[]): Promise<void> {
  const { status, text } = await runBeside(
    'ping',
    '-6',
    '-n',
    '-c',
    '2',
    '-i',
    '0.2',
    '-W',
    '2',
    ...args,
  );
  assert.equal(status, 0, text);
  assert.match(text, / 0% packet loss/);
}

describe('IPv6 between the stack and Linux', { skip: rootMissing() }, () => {
  let nic: SoftNicProcess;
  let router = -1;
  let us: NetInterface;
  const applications: Application[] = [];
  const stacks: NetInterface[] = [];
  let timer: NodeJS.Timeout;

  function open(side: 'a' | 'b', ipv6: Ipv6Options): NetInterface {
    const port = side === 'a' ? 1 : 2;
    const app = Application.connect(nic, port, side, undefined, true, [OURS, KERNEL]);
    applications.push(app);
    const stack = new NetInterface({
      queue: app.queue,
      mac: side === 'a' ? ADDRESSES.aMac : ADDRESSES.bMac,
      address: side === 'a' ? ADDRESSES.aIp : ADDRESSES.bIp,
      prefix: 24,
      secret: Int32Array.of(1, 2, 3, 4),
      ipv6,
    });
    stacks.push(stack);
    return stack;
  }

  before(async () => {
    isolateNetwork();
    run('ip', 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
    const tap = openTap({ name: 'snic0' });
    router = openTap({ name: 'rtr0' }).fd;
    for (const name of ['snic0', 'rtr0']) {
      fs.writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
      run('ip', 'link', 'set', name, 'master', 'br0', 'up');
    }
    run('ip', 'link', 'set', 'br0', 'address', '02:00:00:00:00:fe', 'up');
    run('ip', '-6', 'addr', 'add', `${KERNEL}/64`, 'dev', 'br0', 'nodad');
    nic = new SoftNicProcess();
    assert.equal(nic.request({ op: 'uplink' }, [tap.fd]).ok, true);
    closeFd(tap.fd);
    us = open('a', { addresses: [{ address: parseIpv6(OURS), prefix: 64 }] });
    us.udp6.bind(ECHO, (frame, at, length) => us.udp6.echoInPlace(frame, at, length));
    timer = setInterval(() => {
      for (const stack of stacks) for (let i = 0; i < 16; i++) stack.poll(performance.now());
    }, 1);
    await until(() => us.ipv6.list().every(({ state }) => state === 'preferred'));
  });

  after(async () => {
    clearInterval(timer);
    for (const stack of stacks) stack.close();
    for (const app of applications) app.close();
    await nic.close();
    closeFd(router);
  });

  test('ping, link-local and global, large and in pieces', async () => {
    assert.deepEqual(us.ipv6.list()[0]!.address, LINK_LOCAL);
    await ping(`${LINK_LOCAL}%br0`);
    await ping(OURS);
    await ping('-s', '1452', OURS);
    await ping('-s', '1600', OURS);
    assert.equal(us.counters.reassembled, 2, formatNetCounters(us.counters));
  });

  test('neighbour discovery by Linux, of us', () => {
    assert.match(
      run('ip', '-6', 'neigh', 'show', OURS, 'dev', 'br0'),
      /lladdr 02:00:0a:00:00:01 .*REACHABLE/,
    );
  });

  test('UDP: an echo of ours to the kernel, and of what we ask', async (t) => {
    const socket = dgram.createSocket('udp6');
    t.after(() => socket.close());
    socket.bind(PORT, KERNEL);
    await once(socket, 'listening');
    const answered = once(socket, 'message');
    socket.send('hello', ECHO, OURS);
    const [message, from] = await answered;
    assert.equal(`${message}`, 'hello');
    assert.equal(from.address, OURS);

    // A new neighbour: this address has not spoken yet.
    const kernel = '2001:db8::fd';
    run('ip', '-6', 'addr', 'add', `${kernel}/64`, 'dev', 'br0', 'nodad');
    const echo = dgram.createSocket('udp6');
    t.after(() => echo.close());
    echo.bind(PORT + 1, kernel);
    await once(echo, 'listening');
    echo.on('message', (bytes, { port, address }) => echo.send(bytes, port, address));
    let got = '';
    us.udp6.bind(4000, (_frame, at, length) => {
      got = Buffer.from(applications[0]!.queue.memory.u8.slice(at, at + length)).toString();
    });
    const frame = us.udp6.alloc();
    applications[0]!.queue.memory.u8.set(Buffer.from('question'), frame + UDP6_PAYLOAD_OFFSET);
    assert.ok(us.udp6.sendTo(frame, 8, 4000, parseIpv6(kernel), PORT + 1));
    await until(() => got === 'question');
    assert.equal(us.ipv6.neighbourState(parseIpv6(kernel)), 'reachable');
  });

  test('TCP as server: a megabyte each way at once, to the global and the link-local address', async () => {
    const servers: OurEnd[] = [];
    const listener = us.tcp.listen({
      port: 80,
      address: '::',
      onConnection: (connection) => {
        const server = new OurEnd(applications[0]!.queue.memory.u8);
        servers.push(server);
        server.onOpen(connection);
        return server;
      },
    });
    for (const [i, host] of [OURS, `${LINK_LOCAL}%br0`].entries()) {
      const kernel = new KernelEnd(net.connect({ host, port: 80, allowHalfOpen: true }));
      kernel.send(MEGABYTE);
      await expectDone(
        () => servers[i],
        () => kernel,
      );
    }
    assert.match(servers[0]!.remote, /^2001:db8::f[de]$/);
    assert.match(servers[1]!.remote, /^fe80::/);
    listener.close();
  });

  test('TCP as client: a megabyte each way at once, and refusals both ways', async (t) => {
    const ends: KernelEnd[] = [];
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const end = new KernelEnd(socket);
      ends.push(end);
      end.send(MEGABYTE);
    });
    t.after(() => server.close());
    server.listen(8080, KERNEL);
    await once(server, 'listening');
    const { u8 } = applications[0]!.queue.memory;
    const ours = new OurEnd(u8);
    us.tcp.connect({ address: KERNEL, port: 8080, handlers: ours });
    await expectDone(
      () => ours,
      () => ends[0],
    );

    const refused = new OurEnd(u8);
    us.tcp.connect({ address: KERNEL, port: 8081, handlers: refused });
    await until(() => refused.closed === TCP_END.refused);
    const kernel = new KernelEnd(net.connect({ host: OURS, port: 81 }));
    await until(() => kernel.closed);
    assert.equal(kernel.error?.code, 'ECONNREFUSED');
  });

  test('a closed port is refused, both ways', async (t) => {
    const socket = dgram.createSocket('udp6');
    t.after(() => socket.close());
    const refused = once(socket, 'error');
    socket.connect(9, OURS, () => socket.send('anybody?'));
    const [error] = await refused;
    assert.equal((error as NodeJS.ErrnoException).code, 'ECONNREFUSED');

    let kind = -1;
    us.udp6.bind(
      4001,
      () => {},
      (told) => (kind = told.kind),
    );
    us.udp6.sendTo(us.udp6.alloc(), 1, 4001, parseIpv6(KERNEL), 9);
    await until(() => kind === 1);
  });

  test('a router: an address of its prefix, which the NIC lets through, and Linux reaches', async () => {
    const advertised = routerAdvertisement(ROUTER6, { prefixes: [{ prefix: PREFIX }] });
    fs.writeSync(router, advertised);
    const wanted = '2001:db8:1::aff:fe00:1';
    const made = (): boolean =>
      us.ipv6.list().some(({ address, state }) => address === wanted && state === 'preferred');
    await until(made);
    run('ip', '-6', 'addr', 'add', `${PREFIX}fe/64`, 'dev', 'br0', 'nodad');
    await ping(wanted);
  });

  test('groups: reports that Linux understands, and a datagram to one', async (t) => {
    us.ipv6.join(parseIpv6('ff02::1234'));
    let heard = 0;
    us.udp6.bind(4002, () => heard++);
    const socket = dgram.createSocket('udp6');
    t.after(() => socket.close());
    socket.bind(0);
    await once(socket, 'listening');
    socket.setMulticastInterface('::%br0');
    socket.send('all', 4002, 'ff02::1234%br0');
    await until(() => heard === 1);
    assert.ok(us.counters.mldReports > 0);
  });

  test('a duplicate: Linux has it, and Linux learns that we have it', async () => {
    const second = open('b', { addresses: [{ address: parseIpv6(KERNEL), prefix: 64 }] });
    await until(() => second.ipv6.list()[1]!.state === 'duplicate');
    assert.equal(second.counters.addressDuplicate, 1);
    run('ip', '-6', 'addr', 'add', `${OURS}/64`, 'dev', 'br0');
    await until(() => /dadfailed/.test(run('ip', '-6', 'addr', 'show', 'dev', 'br0')));
  });

  test('a VNIC is nobody else', async () => {
    const before = nic.stats(2).drops;
    const app = applications[1]!;
    const fake = routerAdvertisement({ mac: ADDRESSES.bMac, ip: 'fe80::aff:fe00:2' });
    app.sendBytes(Buffer.from(fake));
    const stolen = routerAdvertisement({ mac: parseMac('02:00:0a:00:00:02'), ip: LINK_LOCAL });
    app.sendBytes(Buffer.from(stolen));
    await until(() => {
      const { drops } = nic.stats(2);
      return (
        (drops.spoofedArp ?? 0) > (before.spoofedArp ?? 0) &&
        (drops.spoofedAddress ?? 0) > (before.spoofedAddress ?? 0)
      );
    });
  });
});
