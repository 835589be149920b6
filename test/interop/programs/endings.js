// How a program ends: `node endings.js HOW HOST`.
import cluster from 'node:cluster';
import http from 'node:http';
import net from 'node:net';

const [how, host] = process.argv.slice(2);
const text = Buffer.alloc(200_000, 'x');

if (how === 'unref') {
  // Nothing keeps it.
  net.createServer().listen(7000, () => console.log('listening')).unref();
} else if (how === 'flush') {
  // Ends by itself, with most of it still to be sent.
  net.connect(9001, host, function () {
    this.end(text);
  });
} else if (how === 'exit') {
  // Breaks off: what was written arrives, and then an end.
  const socket = net.connect(9001, host, () => {
    socket.write(text);
    process.exit(3);
  });
} else if (how === 'throw') {
  net.connect(9001, host, () => {
    throw new Error('of the program');
  });
} else if (how === 'paused') {
  // A socket that nobody reads keeps nothing alive.
  const socket = net.connect(9001, host, () => {
    socket.pause();
    console.log('paused');
  });
} else if (how === 'idle') {
  net.createServer().listen(7000, () => console.log('listening'));
} else if (how === 'cluster' && cluster.isPrimary) {
  const worker = cluster.fork();
  process.once('SIGTERM', () => worker.kill());
} else if (how === 'cluster') {
  const server = http.createServer((_, response) => response.end(`worker ${cluster.worker.id}`));
  server.listen(7001, () => console.log('listening'));
} else if (how === 'timers') {
  // A loop of its own beside a server: neither may starve.
  net.createServer((socket) => socket.pipe(socket)).listen(7000, () => console.log('listening'));
  let turns = 0;
  const turn = () => {
    turns++;
    setImmediate(turn);
  };
  turn();
  let ticks = 0;
  setInterval(() => ticks++, 10);
  setTimeout(() => {
    console.log(JSON.stringify({ turns, ticks }));
    process.exit();
  }, 1000);
}
