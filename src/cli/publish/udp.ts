/**
 * A UDP port of the host that leads to one of a VNIC. Each sender gets a port of ours, so that answers find their way back;
 * it keeps it while it is used, and the one that was silent longest makes room.
 */
import dgram from 'node:dgram';
import { isIPv6 } from 'node:net';
import { NO_FRAME, parseIpv4, UDP_PAYLOAD_OFFSET, type UdpHandler } from '../../arrakis/index.ts';
import type { PublishSpec } from './spec.ts';
import type { Door, Way } from './tcp.ts';

/** Senders of one port at a time. */
const SENDERS_MAX = 128;
/** Dynamic ports (RFC 6335). */
const PORT_FIRST = 49_152;
const PORT_LAST = 65_535;

interface Sender {
  readonly address: string;
  readonly port: number;
  readonly ours: number;
}

/** Ports of our stack that are given to senders, of all doors together. */
let nextPort = PORT_FIRST;

/** Resolves when the port is open; rejects with Node's error, such as EADDRINUSE. */
export async function openUdpDoor(spec: PublishSpec, way: Way): Promise<Door> {
  const socket = dgram.createSocket(isIPv6(spec.address) ? 'udp6' : 'udp4');
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(spec.hostPort, spec.address, resolve);
  });
  return new UdpDoor(socket, spec.port, way);
}

class UdpDoor implements Door {
  readonly #socket: dgram.Socket;
  readonly #port: number;
  readonly #way: Way;
  readonly #target: number;
  /** The one that was heard last is last. */
  readonly #senders = new Map<string, Sender>();

  constructor(socket: dgram.Socket, port: number, way: Way) {
    this.#socket = socket;
    this.#port = port;
    this.#way = way;
    this.#target = parseIpv4(way.target);
    // Such as ECONNREFUSED of a sender that is gone.
    socket.on('error', () => {});
    socket.on('message', (bytes, from) => this.#pass(bytes, from.address, from.port));
  }

  close(): void {
    for (const [key, sender] of this.#senders) this.#forget(key, sender);
    this.#socket.close();
  }

  /** Nothing that a sender has chosen may end more than its own answers. */
  #answer(bytes: Uint8Array, address: string, port: number): void {
    try {
      this.#socket.send(bytes, port, address);
    } catch {
      // No way back to it.
    }
  }

  /** A datagram of the host's goes on. What finds no room is lost, as datagrams are. */
  #pass(bytes: Uint8Array, address: string, port: number): void {
    // RFC 768: who sends so wants no answer; and Node sends none to it.
    if (port === 0) return;
    const sender = this.#senderOf(address, port);
    if (sender === null) return;
    const { net, u8, frameSize, wake } = this.#way;
    const { udp } = net;
    const frame = udp.alloc();
    if (frame === NO_FRAME) return;
    const at = frame + UDP_PAYLOAD_OFFSET;
    if (bytes.length > frameSize - (at & (frameSize - 1))) {
      udp.free(frame);
      return;
    }
    u8.set(bytes, at);
    udp.sendTo(frame, bytes.length, sender.ours, this.#target, this.#port);
    wake();
  }

  #senderOf(address: string, port: number): Sender | null {
    const key = `${address} ${port}`;
    const known = this.#senders.get(key);
    if (known !== undefined) {
      this.#senders.delete(key);
      this.#senders.set(key, known);
      return known;
    }
    const oldest = this.#senders.entries().next().value;
    if (this.#senders.size >= SENDERS_MAX && oldest !== undefined) this.#forget(...oldest);
    const ours = this.#bindAny((_frame, at, length, from, fromPort) => {
      if (from >>> 0 !== this.#target || fromPort !== this.#port) return;
      this.#answer(Buffer.from(this.#way.u8.subarray(at, at + length)), address, port);
    });
    if (ours < 0) return null;
    const sender = { address, port, ours };
    this.#senders.set(key, sender);
    return sender;
  }

  #forget(key: string, sender: Sender): void {
    this.#way.net.udp.unbind(sender.ours);
    this.#senders.delete(key);
  }

  /** A dynamic port that is free; -1 when the stack has no room for another. */
  #bindAny(handler: UdpHandler): number {
    for (let tries = 0; tries <= PORT_LAST - PORT_FIRST; tries++) {
      const port = nextPort;
      nextPort = nextPort === PORT_LAST ? PORT_FIRST : nextPort + 1;
      try {
        this.#way.net.udp.bind(port, handler);
        return port;
      } catch (error) {
        if ((error as { code?: string }).code !== 'ARK_IN_USE') return -1;
      }
    }
    return -1;
  }
}
