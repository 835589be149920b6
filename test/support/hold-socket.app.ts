/**
 * A process that does not want to give descriptor 3, an AF_XDP socket, back. Says `ready`, and lives for a minute.
 *
 *   open     has it open
 *   sends    has it open, and its transmit ring mapped
 *   mapped   has closed it, and its transmit ring mapped
 *   receives has closed it, and its receive ring mapped
 *   later    has it open, and maps its transmit ring after a second
 *   hidden   has sent it to itself through a Unix socket, takes it out after a second, and maps its transmit ring
 */
import { closeAll, closeFd } from '../../src/ffi/fd.ts';
import { receiveMessage, SOCK_SEQPACKET, sendMessage, socketPair } from '../../src/ffi/unix.ts';
import { mapXskRing, xskRingOffsets } from '../../src/ffi/xsk.ts';

const SOCKET = 3;
const LIFE_MS = 60_000;
const LATER_MS = 1000;
const RING_SIZE = 64;

function map(ring: 'rx' | 'tx', socket: number): void {
  mapXskRing(socket, ring, RING_SIZE, xskRingOffsets(socket)[ring]);
}

const how = process.argv[2];
if (how === 'sends') map('tx', SOCKET);
else if (how === 'later') setTimeout(() => map('tx', SOCKET), LATER_MS);
else if (how === 'mapped' || how === 'receives') {
  map(how === 'mapped' ? 'tx' : 'rx', SOCKET);
  closeFd(SOCKET);
} else if (how === 'hidden') {
  const [from, to] = socketPair(SOCK_SEQPACKET);
  sendMessage(from, Buffer.from('x'), [SOCKET]);
  closeFd(SOCKET);
  setTimeout(() => {
    const received = receiveMessage(to, Buffer.alloc(16), 1);
    map('tx', received!.fds[0]!);
    setTimeout(() => closeAll([...received!.fds, from, to]), LIFE_MS);
  }, LATER_MS);
}
process.stdout.write('ready\n');
setTimeout(() => {}, LIFE_MS);
