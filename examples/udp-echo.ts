/**
 * The shortest server: UDP echo and ping on a network card of its own.
 *
 *   arrakis run --vnic soft0,ip=10.77.0.2/24 -- dist/examples/udp-echo.js
 */
import { connect, monotonicMs, NetInterface, netTurn } from '../src/arrakis/index.ts';

const domain = await connect();
const vnic = await domain.openVnic();
vnic.on('gone', (reason) => console.error(`the VNIC is gone: ${reason}`));
const net = new NetInterface(vnic);

// The handler sees the packet where the card put it, and answers in it: nothing is copied or allocated.
net.udp.bind(7, (frame, payloadAt, payloadLength) => {
  net.udp.echoInPlace(frame, payloadAt, payloadLength);
});

const { turn, timeoutMs } = netTurn(net, monotonicMs);
await vnic.poll(turn, { timeoutMs }).done;
