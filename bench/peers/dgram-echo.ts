/** UDP echo on Node's own `dgram`: the baseline that `arrakis bench echo` calls kernel/node-dgram. */
import dgram from 'node:dgram';

const [address, port] = process.argv.slice(2);
const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 8 << 20 });
socket.on('message', (message, from) => socket.send(message, from.port, from.address));
socket.bind(Number(port), address);
