/**
 * Whole vhost-user messages out of a non-blocking stream, which gives them in any pieces. The descriptors of a
 * message come with its first byte (unix(7)) and belong to whoever takes the message.
 */
import { ArrakisError } from '../base/errors.ts';
import { closeForeign } from '../ffi/fd.ts';
import { receiveMessage } from '../ffi/unix.ts';
import { decodeHeader, HEADER_LEN, type MessageHeader, REGIONS_MAX } from './vhost-user.ts';

/**
 * Descriptors that one message can carry (unix(7)). There is room for all of them, though no good client sends so many:
 * what does not fit the kernel closes on our time, and that close may last.
 */
const SCM_MAX_FD = 253;

export interface VhostMessage {
  header: MessageHeader;
  payload: Buffer;
  fds: number[];
}

/** A client did what the protocol does not allow; its session ends. */
export function refuse(text: string): never {
  throw new ArrakisError('ARK_PROTOCOL', text);
}

export class VhostReceiver {
  readonly #fd: number;
  #header: MessageHeader | null = null;
  #bytes: Buffer = Buffer.alloc(HEADER_LEN);
  #have = 0;
  #fds: number[] = [];

  /** Reads `fd`, which stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The next message; 'wait' when it is not all there, 'end' when none will come. Throws for a malformed one. */
  next(): VhostMessage | 'wait' | 'end' {
    // Each turn receives at least a byte of a message of bounded length.
    while (this.#have < this.#bytes.length || this.#header === null) {
      if (this.#have < this.#bytes.length) {
        const progress = this.#read();
        if (progress !== 'more') return progress;
      } else {
        this.#header = decodeHeader(this.#bytes) ?? refuse('a message header is malformed');
        this.#bytes = Buffer.alloc(this.#header.size);
        this.#have = 0;
      }
    }
    const message = { header: this.#header, payload: this.#bytes, fds: this.#fds };
    this.#header = null;
    this.#fds = [];
    this.#bytes = Buffer.alloc(HEADER_LEN);
    this.#have = 0;
    return message;
  }

  /** Close the descriptors of a message that was not completed. */
  close(): void {
    closeForeign(this.#fds);
  }

  #read(): 'wait' | 'end' | 'more' {
    const part = Buffer.alloc(this.#bytes.length - this.#have);
    const received = receiveMessage(this.#fd, part, SCM_MAX_FD);
    if (received === null) return 'wait';
    this.#fds.push(...received.fds);
    if (received.truncated || this.#fds.length > REGIONS_MAX) refuse('too many descriptors');
    if (received.length === 0) return 'end';
    part.copy(this.#bytes, this.#have, 0, received.length);
    this.#have += received.length;
    return 'more';
  }
}
