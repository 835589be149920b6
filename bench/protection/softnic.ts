/** Contestants over the software NIC: two ports of one device, both in this process, the device on a core of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { formatIpv4, parseIpv4, parseMac } from '../../src/base/address.ts';
import type { Direction, RateSetting } from '../../src/device/rate.ts';
import { createRegion, type VirtioGrant, virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import { openVirtioQueue } from '../../src/drivers/virtio/queue.ts';
import { cpuTimeNs, processClock, threadClock } from '../../src/ffi/clock.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import {
  receiveMessage,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
  socketPair,
} from '../../src/ffi/unix.ts';
import type { EchoEndpoints } from '../echo/frame.ts';
import { type Contestant, HIGH_BITS_PER_SECOND } from './contest.ts';
import type { DeviceThread } from './device.ts';
import type { PartsName } from './parts.ts';

const DEVICE = new URL('./device.js', import.meta.url);
const ANSWER_MS = 10_000;
const RING_SIZE = 256;
const FRAME_SIZE = 2048;
const FRAME_COUNT = 1024;
const HEADROOM = 128;
/** Less than a ring: the device always has a buffer for what comes. */
const WINDOW = 192;
/** Its packets and its bandwidth are the VNIC's that is measured. */
const VNIC = 2;

const FORTH: EchoEndpoints = {
  sourceMac: parseMac('02:00:0a:4d:00:01'),
  destinationMac: parseMac('02:00:0a:4d:00:02'),
  sourceAddress: parseIpv4('10.77.0.1'),
  destinationAddress: parseIpv4('10.77.0.2'),
  sourcePort: 40_001,
  destinationPort: 7,
};

export interface SoftContestantOptions {
  /** The mechanism that is left out. */
  without: PartsName;
  /** Whether limits are set for both ports. */
  rates: boolean;
  /** Run the device as a thread of this process. */
  thread: boolean;
  /** Processor of the device. */
  cpu: number;
}

/** The device and its control channel, which is spoken synchronously. */
class Device {
  readonly #fd: number;
  readonly #end: () => void;
  readonly clock: number;
  #id = 0;

  private constructor(fd: number, clock: number, end: () => void) {
    this.#fd = fd;
    this.clock = clock;
    this.#end = end;
  }

  static async start(without: PartsName, inThread: boolean): Promise<Device> {
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    setTimeouts(ours, ANSWER_MS);
    if (inThread) {
      const worker = new Worker(DEVICE, { workerData: { fd: theirs, without } as DeviceThread });
      const [tid] = (await once(worker, 'message')) as [number];
      return new Device(ours, threadClock(tid), () => {});
    }
    const child: ChildProcess = spawn(process.execPath, [fileURLToPath(DEVICE), without], {
      stdio: ['ignore', 'ignore', 'inherit', theirs],
    });
    closeFd(theirs);
    return new Device(ours, processClock(child.pid!), () => child.unref());
  }

  /** Send a request with descriptors, which stay the caller's, and wait for its answer. */
  request(message: Record<string, unknown>, fds: number[] = []): Record<string, unknown> {
    const id = ++this.#id;
    sendMessage(this.#fd, Buffer.from(JSON.stringify({ id, ...message })), fds);
    const buffer = Buffer.alloc(64 * 1024);
    const end = performance.now() + ANSWER_MS;
    while (performance.now() < end) {
      const received = receiveMessage(this.#fd, buffer, 0);
      if (received === null) continue;
      if (received.length === 0) break;
      const answer = JSON.parse(buffer.toString('utf8', 0, received.length));
      if (answer.id !== id) continue;
      if (answer.ok === true) return answer;
      throw new Error(`the device refused ${message.op}: ${answer.message}`);
    }
    throw new Error(`the device does not answer ${message.op}`);
  }

  /** The end of the channel is that of the device. */
  close(): void {
    closeFd(this.#fd);
    this.#end();
  }
}

const rateOf = (direction: Direction, packetsPerSecond: number | null): RateSetting => ({
  queue: null,
  direction,
  weight: 1,
  bitsPerSecond: packetsPerSecond === null ? HIGH_BITS_PER_SECOND : null,
  packetsPerSecond,
});

function openPort(
  device: Device,
  port: number,
  mac: number,
  address: number,
  udpPort: number,
  rates: boolean,
) {
  const sizes = { ringSize: RING_SIZE, frameSize: FRAME_SIZE, frameCount: FRAME_COUNT };
  const { regionBytes } = virtioGeometry(sizes);
  const grant: VirtioGrant = { mac, mtu: 1500, headroom: HEADROOM, ...sizes, regionBytes };
  const [socket, theirs] = socketPair(SOCK_STREAM);
  const filters = [`udp dst port ${udpPort} and dst host ${formatIpv4(address)}`];
  const limits = rates ? [rateOf('send', null), rateOf('receive', null)] : [];
  device.request({ op: 'addPort', port, mac, filters, rates: limits, regionBytes }, [theirs]);
  closeFd(theirs);
  return openVirtioQueue(grant, { region: createRegion(grant), socket });
}

export async function softContestant(options: SoftContestantOptions): Promise<Contestant> {
  const { without, rates, thread, cpu } = options;
  const device = await Device.start(without, thread);
  try {
    device.request({ op: 'affinity', cpus: [cpu] });
    const e = FORTH;
    const a = openPort(device, 1, e.sourceMac, e.sourceAddress, e.sourcePort, rates);
    const b = openPort(
      device,
      VNIC,
      e.destinationMac,
      e.destinationAddress,
      e.destinationPort,
      rates,
    );
    return {
      a,
      b,
      forth: e,
      window: WINDOW,
      both: false,
      sendsUnchecked: false,
      cpuNs: () => cpuTimeNs(device.clock),
      setLimit: rates
        ? (direction, packetsPerSecond) => {
            const rate = rateOf(direction, packetsPerSecond);
            device.request({ op: 'setRate', port: VNIC, rate });
          }
        : null,
      counted: () => {
        const { ports } = device.request({ op: 'stats' }) as {
          ports: { port: number; rxPackets: number; txPackets: number }[];
        };
        const { rxPackets, txPackets } = ports.find(({ port }) => port === VNIC)!;
        return rxPackets + txPackets;
      },
      close() {
        a.close();
        b.close();
        device.close();
      },
    };
  } catch (error) {
    device.close();
    throw error;
  }
}
