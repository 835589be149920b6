/** The kernel's end of a TCP connection of the interop tests: a socket of Node's that sends a pattern and checks the peer's. */
import type net from 'node:net';
import { Pattern } from './tcp-pattern.ts';

/** The kernel's end: sends `bytes`, then FIN; checks what comes. */
export class KernelEnd {
  readonly socket: net.Socket;
  readonly receiving = new Pattern();
  received = 0;
  isRight = true;
  ended = false;
  closed = false;
  error: NodeJS.ErrnoException | null = null;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => {
      this.isRight &&= this.receiving.matches(chunk, 0, chunk.length);
      this.received += chunk.length;
    });
    socket.on('end', () => {
      this.ended = true;
    });
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('error', (error) => {
      this.error = error;
    });
  }

  send(bytes: number): void {
    const sending = new Pattern();
    const pump = (): void => {
      while (sending.at < bytes) {
        const chunk = Buffer.alloc(Math.min(65_536, bytes - sending.at));
        sending.peek(chunk, chunk.length);
        sending.skip(chunk.length);
        if (!this.socket.write(chunk)) {
          this.socket.once('drain', pump);
          return;
        }
      }
      this.socket.end();
    };
    pump();
  }
}
