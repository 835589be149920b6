/**
 * A process that does not want to give descriptor 3, an AF_XDP socket, back. Says `ready`, and lives for a minute.
 *
 *   open     has it open
 *   mapped   has closed it, and its transmit ring mapped
 *   hidden   has sent it to itself through a Unix socket, and takes it out after a second: `taken`
 */
import { closeAll, closeFd } from '../../src/ffi/fd.ts';
import { receiveMessage, SOCK_SEQPACKET, sendMessage, socketPair } from '../../src/ffi/unix.ts';
import { mapXskRing, xskRingOffsets } from '../../src/ffi/xsk.ts';

const SOCKET = 3;
const LIFE_MS = 60_000;
const HIDE_MS = 1000;
const RING_SIZE = 64;

const how = process.argv[2];
if (how === 'mapped') {
  mapXskRing(SOCKET, 'tx', RING_SIZE, xskRingOffsets(SOCKET).tx);
  closeFd(SOCKET);
} else if (how === 'hidden') {
  const [from, to] = socketPair(SOCK_SEQPACKET);
  sendMessage(from, Buffer.from('x'), [SOCKET]);
  closeFd(SOCKET);
  setTimeout(() => {
    const received = receiveMessage(to, Buffer.alloc(16), 1);
    process.stdout.write('taken\n');
    setTimeout(() => closeAll([...received!.fds, from, to]), LIFE_MS);
  }, HIDE_MS);
}
process.stdout.write('ready\n');
setTimeout(() => {}, LIFE_MS);
