/** Two Node processes over a Unix stream socket: `net-end.js server|client PATH`. */
import net from 'node:net';
import { endWithParent, readJob, report } from './job.ts';

const [role, path] = process.argv.slice(2) as [string, string];
const job = readJob();
const message = Buffer.alloc(job.bytes, 1);

function serve(socket: net.Socket): void {
  const trips = (job.warmup + job.roundTrips) * job.bytes;
  const all = trips + job.messages * job.bytes;
  let got = 0;
  socket.on('error', () => process.exit(0));
  socket.on('data', (data) => {
    got += data.length;
    if (got <= trips) socket.write(data);
    else if (got === all) socket.write('.');
  });
}

/** Calls back after each `bytes` bytes that arrive. */
function onBytes(socket: net.Socket, bytes: () => number, then: () => void): void {
  let left = bytes();
  socket.on('data', (data) => {
    left -= data.length;
    if (left > 0) return;
    then();
    left = bytes();
  });
}

function drive(socket: net.Socket): void {
  const samples = new Float64Array(job.roundTrips);
  let n = -job.warmup;
  let start = performance.now();
  const flood = (): void => {
    start = performance.now();
    let left = job.messages;
    const more = (): void => {
      while (left > 0) {
        left--;
        if (!socket.write(message)) {
          socket.once('drain', more);
          return;
        }
      }
    };
    more();
  };
  const tripsLeft = (): boolean => n < job.roundTrips;
  onBytes(
    socket,
    () => (tripsLeft() ? job.bytes : 1),
    () => {
      const now = performance.now();
      if (!tripsLeft()) {
        report(samples, job, (now - start) / 1000);
        process.exit(0);
      }
      if (n >= 0) samples[n] = (now - start) * 1000;
      n++;
      if (!tripsLeft()) return flood();
      start = performance.now();
      socket.write(message);
    },
  );
  socket.write(message);
}

endWithParent();
if (role === 'server') net.createServer(serve).listen(path, () => process.stdout.write('ready\n'));
else {
  const socket = net.connect(path, () => drive(socket));
}
