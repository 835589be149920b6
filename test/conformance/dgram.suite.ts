/** What a program may expect of `node:dgram`: the same cases on the kernel's sockets and on ours. */
import assert from 'node:assert/strict';
import dgram, { type RemoteInfo, type Socket, type SocketOptions } from 'node:dgram';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';

export interface DgramPlace {
  /** Where the one side is, and the other. */
  readonly address: string;
  readonly from: string;
  /** A group that reaches the one from the other; without one the cases of multicast are left out. */
  readonly group?: string;
}

const GROUP_PORT = 41_234;

class Stage {
  readonly place: DgramPlace;
  readonly #open: Socket[] = [];

  constructor(place: DgramPlace) {
    this.place = place;
  }

  async socket(address: string, port = 0, options: Partial<SocketOptions> = {}): Promise<Socket> {
    const socket = dgram.createSocket({ type: 'udp4', ...options });
    this.#open.push(socket);
    socket.bind(port, address);
    await once(socket, 'listening');
    return socket;
  }

  /** The one side and the other. */
  async pair(): Promise<{ here: Socket; there: Socket }> {
    const { address, from } = this.place;
    return { here: await this.socket(address), there: await this.socket(from) };
  }

  close(): void {
    for (const socket of this.#open.splice(0)) {
      try {
        socket.close();
      } catch {
        // The test closed it.
      }
    }
  }
}

type Message = [bytes: Buffer, from: RemoteInfo];
const message = (socket: Socket): Promise<Message> => once(socket, 'message') as Promise<Message>;

const send = (socket: Socket, bytes: Buffer | string, port: number, address: string) =>
  new Promise<number>((resolve, reject) => {
    socket.send(bytes, port, address, (error, sent) => (error ? reject(error) : resolve(sent)));
  });

export function dgramSuite(name: string, place: DgramPlace): void {
  describe(name, { timeout: 20_000 }, () => {
    const stage = new Stage(place);
    after(() => stage.close());
    datagramCases(stage);
    boundCases(stage);
    connectedCases(stage);
    settingCases(stage);
    if (place.group !== undefined) groupCases(stage, place.group);
  });
}

function datagramCases(stage: Stage): void {
  test('there and back, with addresses and ports', async () => {
    const { here, there } = await stage.pair();
    assert.deepEqual(here.address(), {
      address: stage.place.address,
      family: 'IPv4',
      port: here.address().port,
    });
    const arrived = message(here);
    assert.equal(await send(there, 'ping', here.address().port, stage.place.address), 4);
    const [bytes, from] = await arrived;
    assert.equal(String(bytes), 'ping');
    assert.deepEqual(from, {
      address: stage.place.from,
      family: 'IPv4',
      port: there.address().port,
      size: 4,
    });
    const back = message(there);
    here.send([Buffer.from('po'), Buffer.from('ng')], from.port, from.address);
    assert.equal(String((await back)[0]), 'pong');
  });

  test('empty, and as large as it gets', async () => {
    const { here, there } = await stage.pair();
    for (const size of [0, 1, 1472, 1473, 9000, 65_507]) {
      const arrived = message(here);
      const sent = await send(
        there,
        Buffer.alloc(size, size),
        here.address().port,
        stage.place.address,
      );
      assert.equal(sent, size);
      assert.deepEqual((await arrived)[0], Buffer.alloc(size, size));
    }
  });

  test('too large: EMSGSIZE', async () => {
    const { here, there } = await stage.pair();
    const sent = send(there, Buffer.alloc(65_508), here.address().port, stage.place.address);
    await assert.rejects(sent, { code: 'EMSGSIZE', syscall: 'send' });
  });

  test('a burst arrives in order', async () => {
    const { here, there } = await stage.pair();
    const seen: number[] = [];
    here.on('message', (bytes) => seen.push(bytes.readUInt32BE(0)));
    for (let i = 0; i < 200; i++) {
      const bytes = Buffer.alloc(100);
      bytes.writeUInt32BE(i);
      there.send(bytes, here.address().port, stage.place.address);
    }
    while (seen.length < 200) await new Promise((resolve) => setTimeout(resolve, 2));
    assert.deepEqual(seen, [...new Array(200).keys()]);
  });
}

function boundCases(stage: Stage): void {
  test('kept messages keep their bytes', async () => {
    const { here, there } = await stage.pair();
    const kept: Buffer[] = [];
    here.on('message', (bytes) => kept.push(bytes));
    for (let i = 0; i < 50; i++) {
      await send(there, Buffer.alloc(1000, i), here.address().port, stage.place.address);
    }
    while (kept.length < 50) await new Promise((resolve) => setTimeout(resolve, 2));
    for (const [i, bytes] of kept.entries()) assert.deepEqual(bytes, Buffer.alloc(1000, i));
  });

  test('bound twice: EADDRINUSE', async () => {
    const { here } = await stage.pair();
    const second = dgram.createSocket('udp4');
    second.bind(here.address().port, stage.place.address);
    const [error] = await once(second, 'error');
    assert.equal(error.code, 'EADDRINUSE');
    assert.equal(error.syscall, 'bind');
    second.close();
  });

  test('closed: the port is free again, and nothing is heard', async () => {
    const { here } = await stage.pair();
    const { port } = here.address();
    here.close();
    await once(here, 'close');
    assert.throws(() => here.send('x', port, stage.place.address), {
      code: 'ERR_SOCKET_DGRAM_NOT_RUNNING',
    });
    const again = await stage.socket(stage.place.address, port);
    assert.equal(again.address().port, port);
  });
}

function connectedCases(stage: Stage): void {
  const connect = async (socket: Socket, port: number): Promise<void> => {
    socket.connect(port, stage.place.address);
    await once(socket, 'connect');
  };

  test('connected: sends without an address, hears only the other', async () => {
    const { here, there } = await stage.pair();
    await connect(there, here.address().port);
    assert.deepEqual(there.remoteAddress(), {
      address: stage.place.address,
      family: 'IPv4',
      port: here.address().port,
    });
    const stranger = await stage.socket(stage.place.address);
    const heard: string[] = [];
    there.on('message', (bytes) => heard.push(String(bytes)));
    await send(stranger, 'stranger', there.address().port, stage.place.from);
    const arrived = message(here);
    there.send('question');
    const [, from] = await arrived;
    await send(here, 'answer', from.port, from.address);
    while (heard.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    assert.deepEqual(heard, ['answer']);
  });

  test('connected to a port that nobody has: ECONNREFUSED', async () => {
    const { here, there } = await stage.pair();
    const { port } = here.address();
    here.close();
    await connect(there, port);
    const failed = once(there, 'error');
    there.send('x');
    const [error] = await failed;
    assert.equal(error.code, 'ECONNREFUSED');
  });

  test('disconnect: anybody again', async () => {
    const { here, there } = await stage.pair();
    await connect(there, here.address().port);
    there.disconnect();
    assert.throws(() => there.remoteAddress(), { code: 'ERR_SOCKET_DGRAM_NOT_CONNECTED' });
    const stranger = await stage.socket(stage.place.address);
    const arrived = message(stranger);
    await send(there, 'to a stranger', stranger.address().port, stage.place.address);
    assert.equal(String((await arrived)[0]), 'to a stranger');
  });
}

function settingCases(stage: Stage): void {
  test('settings, and what is wrong with them', async () => {
    const { here } = await stage.pair();
    here.setTTL(10);
    here.setMulticastTTL(5);
    here.setMulticastLoopback(false);
    assert.throws(() => here.setTTL(300), { code: 'EINVAL' });
    assert.throws(() => here.addMembership('10.0.0.1'), { code: 'EINVAL' });
    assert.equal(typeof here.getRecvBufferSize(), 'number');
    assert.equal(here.getSendQueueCount(), 0);
    assert.equal(here.unref(), here);
    assert.equal(here.ref(), here);
  });

  test('a broadcast takes leave', async () => {
    const { here } = await stage.pair();
    await assert.rejects(send(here, 'x', 9, '255.255.255.255'), { code: 'EACCES' });
  });
}

function groupCases(stage: Stage, group: string): void {
  test('a group: who joined hears it, who left does not', async () => {
    const { address, from } = stage.place;
    const there = await stage.socket(from);
    const here = await stage.socket('0.0.0.0', GROUP_PORT, { reuseAddr: true });
    here.addMembership(group, address);
    there.setMulticastInterface(from);
    const arrived = message(here);
    await send(there, 'to all', GROUP_PORT, group);
    const [bytes, info] = await arrived;
    assert.equal(String(bytes), 'to all');
    assert.equal(info.address, from);
    here.dropMembership(group, address);
    here.on('message', () => assert.fail('it left the group'));
    await send(there, 'to others', GROUP_PORT, group);
    await new Promise((resolve) => setTimeout(resolve, 50));
  });
}
