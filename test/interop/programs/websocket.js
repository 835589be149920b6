// A server of WebSockets that says what it hears, and counts its clients.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ port: 8081 });
server.on('listening', () => console.log('listening on', server.address().port));
server.on('connection', (socket, request) => {
  socket.send(`${server.clients.size} from ${request.socket.remoteAddress}`);
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
process.once('SIGTERM', () => {
  for (const client of server.clients) client.close();
  server.close();
});
