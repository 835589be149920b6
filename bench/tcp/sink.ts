/** The receiving end of `arrakis bench tcp`: takes what comes on TCP port 5001 of its VNIC, and throws it away. */
import {
  connect,
  monotonicMs,
  monotonicUs32,
  NetInterface,
  netTurn,
  type TcpHandlers,
} from '../../src/arrakis/index.ts';

const PORT = 5001;

const domain = await connect({ name: 'sink' });
const vnic = await domain.openVnic(undefined, { offload: true });
const net = new NetInterface(vnic);
const handlers: TcpHandlers = {
  onData() {},
  onEnd: (connection) => connection.end(),
};
net.tcp.listen({ port: PORT, backlog: 128, onConnection: () => handlers });
const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
const loop = vnic.poll(turn, { timeoutMs });
process.once('SIGTERM', () => loop.stop());
await loop.done;
net.close();
await domain.close();
