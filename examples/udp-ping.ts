/**
 * A client: sends a datagram each second to a UDP echo server and prints the time to its answer.
 *
 *   arrakis run --vnic soft0,ip=10.77.0.5/24 -- dist/examples/udp-ping.js 10.77.0.2
 */
import {
  connect,
  monotonicMs,
  NetInterface,
  NO_FRAME,
  netTurn,
  parseIpv4,
} from '../src/arrakis/index.ts';

const [PORT, ECHO_PORT, LENGTH] = [40_000, 7, 22];
const server = parseIpv4(process.argv[2] ?? '10.77.0.2');

const domain = await connect();
const vnic = await domain.openVnic();
const net = new NetInterface(vnic);
let sentMs = 0;

net.udp.bind(PORT, (_frame, _payloadAt, payloadLength) => {
  const us = Math.round((performance.now() - sentMs) * 1000);
  console.log(`${payloadLength} bytes back after ${us} µs`);
});

const { turn, timeoutMs } = netTurn(net, monotonicMs);
const loop = vnic.poll(turn, { timeoutMs });
const timer = setInterval(() => {
  const frame = net.udp.alloc();
  if (frame === NO_FRAME) return;
  sentMs = performance.now();
  net.udp.sendTo(frame, LENGTH, PORT, server, ECHO_PORT);
  loop.wake();
}, 1000);
await loop.done;
clearInterval(timer);
