/**
 * A UDP port of the host that leads to one of a VNIC. Each sender gets a port of ours, so that answers find their way back;
 * it keeps it while it is used, and the one that was silent longest makes room.
 */
import dgram from 'node:dgram';
import { isIPv6 } from 'node:net';
import { NO_FRAME, parseIpv4, UDP_PAYLOAD_OFFSET } from '../../arrakis/index.ts';
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

export async function openUdpDoor(spec: PublishSpec, way: Way): Promise<Door> {
  const socket = dgram.createSocket(isIPv6(spec.address) ? 'udp6' : 'udp4');
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(spec.hostPort, spec.address, resolve);
  });
  // Such as ECONNREFUSED of a sender that is gone.
  socket.on('error', () => {});
  const { udp } = way.net;
  const target = parseIpv4(way.target);
  /** The one that was heard last is last. */
  const senders = new Map<string, Sender>();

  const forget = (key: string, sender: Sender): void => {
    udp.unbind(sender.ours);
    senders.delete(key);
  };

  const senderOf = (address: string, port: number): Sender | null => {
    const key = `${address} ${port}`;
    const known = senders.get(key);
    if (known !== undefined) {
      senders.delete(key);
      senders.set(key, known);
      return known;
    }
    const oldest = senders.entries().next().value;
    if (senders.size >= SENDERS_MAX && oldest !== undefined) forget(...oldest);
    const ours = bindAny((_frame, at, length, from, fromPort) => {
      if (from >>> 0 !== target || fromPort !== spec.port) return;
      socket.send(Buffer.from(way.u8.subarray(at, at + length)), port, address);
    });
    if (ours < 0) return null;
    const sender = { address, port, ours };
    senders.set(key, sender);
    return sender;
  };

  const bindAny = (handler: Parameters<typeof udp.bind>[1]): number => {
    for (let tries = 0; tries <= PORT_LAST - PORT_FIRST; tries++) {
      const port = nextPort;
      nextPort = nextPort === PORT_LAST ? PORT_FIRST : nextPort + 1;
      try {
        udp.bind(port, handler);
        return port;
      } catch (error) {
        if ((error as { code?: string }).code !== 'ARK_IN_USE') return -1;
      }
    }
    return -1;
  };

  socket.on('message', (bytes, { address, port }) => {
    const sender = senderOf(address, port);
    if (sender === null) return;
    const frame = udp.alloc();
    if (frame === NO_FRAME) return;
    const at = frame + UDP_PAYLOAD_OFFSET;
    const room = way.frameSize - (at & (way.frameSize - 1));
    if (bytes.length > room) {
      udp.free(frame);
      return;
    }
    way.u8.set(bytes, at);
    udp.sendTo(frame, bytes.length, sender.ours, target, spec.port);
    way.wake();
  });

  return {
    close() {
      for (const [key, sender] of senders) forget(key, sender);
      socket.close();
    },
  };
}
