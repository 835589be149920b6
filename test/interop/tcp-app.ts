/**
 * A TCP end on a VNIC for the interop tests: sends a pattern and checks the peer's, and prints what happened.
 *
 *   tcp-app.js serve PORT BYTES | connect ADDRESS PORT BYTES [reset]
 */
import {
  connect,
  formatNetCounters,
  monotonicMs,
  monotonicUs32,
  NetInterface,
  netTurn,
  TCP_END,
  type TcpConnection,
  type TcpHandlers,
} from '../../src/arrakis/index.ts';
import { Pattern } from './tcp-pattern.ts';

const [role, ...rest] = process.argv.slice(2);
const [address, port, bytes, how] =
  role === 'serve' ? ['', rest[0]!, rest[1]!, rest[2]] : [rest[0]!, rest[1]!, rest[2]!, rest[3]];

const domain = await connect();
const vnic = await domain.openVnic();
const net = new NetInterface(vnic);
const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);

/** Sends `bytes` of the pattern, then FIN; expects a pattern of any length, then FIN. */
function talker(name: string): TcpHandlers {
  const sending = new Pattern();
  const receiving = new Pattern();
  const total = Number(bytes);
  const chunk = new Uint8Array(16_384);
  const pump = (connection: TcpConnection): void => {
    while (sending.at < total) {
      const want = Math.min(chunk.length, total - sending.at);
      sending.peek(chunk, want);
      const took = connection.write(chunk, 0, want);
      sending.skip(took);
      if (took < want) return;
    }
    connection.end();
  };
  let received = 0;
  return {
    onOpen: pump,
    onDrain: pump,
    onData: (connection, _frame, at, length) => {
      if (received === 0 && role === 'serve') pump(connection);
      received += length;
      if (!receiving.matches(vnic.queue.memory.u8, at, length)) {
        console.log(`${name} wrong bytes before ${received}`);
        connection.abort();
      }
      if (how === 'reset' && received >= 1000) connection.abort();
    },
    onEnd: () => console.log(`${name} end after ${received}`),
    onClose: (_connection, why) => {
      const end = Object.entries(TCP_END).find(([, code]) => code === why)![0];
      console.log(`${name} closed ${end} received ${received}`);
      console.log(`counters ${formatNetCounters(net.counters)}`);
    },
  };
}

let count = 0;
if (role === 'serve') {
  net.tcp.listen({ port: Number(port), onConnection: () => talker(`server${count++}`) });
} else {
  net.tcp.connect({ address, port: Number(port), handlers: talker('client') });
}
const loop = vnic.poll(turn, { timeoutMs });
process.once('SIGTERM', () => loop.stop());
console.log('tcp-app: ready');
await loop.done;
net.close();
await domain.close();
