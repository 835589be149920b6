/**
 * The shortest TCP server: it says back what it hears, without a copy.
 *
 *   arrakis run --vnic soft0,ip=10.77.0.2/24 -- dist/examples/tcp-echo.js
 */
import {
  connect,
  monotonicMs,
  monotonicUs32,
  NetInterface,
  netTurn,
  type TcpHandlers,
} from '../src/arrakis/index.ts';

const domain = await connect();
const vnic = await domain.openVnic();
vnic.on('gone', (reason) => console.error(`the VNIC is gone: ${reason}`));
const net = new NetInterface(vnic);

const handlers: TcpHandlers = {
  // Sent from where the card put it. A peer that sends for ever and reads nothing is not served.
  onData: (connection, frame, at, length) => {
    if (!connection.forward(frame, at, length)) connection.abort();
  },
  onEnd: (connection) => connection.end(),
};
net.tcp.listen({ port: 7, onConnection: () => handlers });

const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
await vnic.poll(turn, { timeoutMs }).done;
