/** UDP echo (RFC 862) on the native interface: every datagram goes back where it came from, in its own frame. */
import type { NetInterface } from '../../src/arrakis/index.ts';

export interface EchoCounters {
  datagrams: number;
  bytes: number;
  /** Not answered: from the echo port itself. Two echo servers would answer each other for ever. */
  fromEcho: number;
}

/** Answer on UDP `port` of `net` from now on. ARK_IN_USE and ARK_BAD_ARGUMENT as `bind` has them. */
export function serveEcho(net: NetInterface, port: number): EchoCounters {
  const counters: EchoCounters = { datagrams: 0, bytes: 0, fromEcho: 0 };
  const { udp } = net;
  udp.bind(port, (frame, payloadAt, payloadLength, _srcIp, srcPort) => {
    if (srcPort === port) {
      counters.fromEcho++;
      return;
    }
    counters.datagrams++;
    counters.bytes += payloadLength;
    udp.echoInPlace(frame, payloadAt, payloadLength);
  });
  return counters;
}
