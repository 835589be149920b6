/** Echo (RFC 862) on the native interface: what comes goes back where it came from, in its own frame. */
import type { NetInterface, TcpConnection, TcpHandlers } from '../../src/arrakis/index.ts';

export interface EchoCounters {
  datagrams: number;
  bytes: number;
  /** Not answered: from the echo port itself. Two echo servers would answer each other for ever. */
  fromEcho: number;
  connections: number;
  /** Of connections. */
  streamBytes: number;
}

/** Answer on UDP and TCP `port` of `net` from now on. ARK_IN_USE and ARK_BAD_ARGUMENT as `bind` has them. */
export function serveEcho(net: NetInterface, port: number): EchoCounters {
  const counters: EchoCounters = {
    datagrams: 0,
    bytes: 0,
    fromEcho: 0,
    connections: 0,
    streamBytes: 0,
  };
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
  const handlers = streamHandlers(counters);
  net.tcp.listen({
    port,
    onConnection: () => {
      counters.connections++;
      return handlers;
    },
  });
  return counters;
}

/** What found no room to go back yet: the peer sends, but does not read. One piece, as the connection is paused then. */
interface Late {
  readonly frame: number;
  readonly at: number;
  readonly length: number;
}

function streamHandlers(counters: EchoCounters): TcpHandlers {
  const release = (connection: TcpConnection, { frame, length }: Late): void => {
    connection.data = null;
    connection.release(frame, length);
  };
  return {
    onData: (connection, frame, at, length) => {
      counters.streamBytes += length;
      if (connection.forward(frame, at, length)) return;
      connection.hold(frame);
      connection.pause();
      connection.data = { frame, at, length } satisfies Late;
    },
    onDrain: (connection) => {
      const late = connection.data as Late | null;
      if (late === null || !connection.forward(late.frame, late.at, late.length)) return;
      release(connection, late);
      connection.resume();
    },
    onEnd: (connection) => connection.end(),
    onClose: (connection) => {
      if (connection.data !== null) release(connection, connection.data as Late);
    },
  };
}
