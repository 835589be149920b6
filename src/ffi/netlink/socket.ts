/**
 * A NETLINK_ROUTE socket that asks and waits: one request, its replies, the kernel's verdict.
 *
 * - It speaks to the network namespace that the opening thread was in, for as long as it is open.
 * - Only the kernel (port 0) is listened to; other processes may send to a netlink port, too.
 * - Every wait ends: a silent kernel is ARK_TIMEOUT, a dump that keeps changing is asked again a few times.
 */
import { ArrakisError, SystemError } from '../../base/errors.ts';
import { closeFd, writeFd } from '../fd.ts';
import { bind, EAGAIN, EINTR, ENOBUFS, errno, errnoName, errnoToName } from '../libc.ts';
import { AF_NETLINK, bindSocket, openSocket, SOCK_RAW, setSocketOption } from '../socket.ts';
import { setTimeouts } from '../unix.ts';
import {
  emitMessage,
  getString,
  HEADER_LEN,
  type Message,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  parseAttributes,
  parseMessages,
} from './codec.ts';

const recvfrom = bind<
  (
    fd: number,
    buffer: Uint8Array,
    length: number,
    flags: number,
    from: Uint8Array,
    fromLength: Uint8Array,
  ) => number
>('recvfrom', 'long', ['int', 'void *', 'size_t', 'int', 'void *', 'void *']);

const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NLMSGERR_ATTR_MSG = 1;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const SOCKADDR_NL_LEN = 12;
/** The kernel fills dump datagrams up to 32 KiB; twice that leaves room for one very long link. */
const RECEIVE_BYTES = 64 * 1024;
const TIMEOUT_MS = 5000;
const DUMP_ATTEMPTS_MAX = 8;
/** A request is answered in far fewer; stops a flood from other processes. */
const DATAGRAMS_MAX = 65536;

/** What a request is about, for error messages: the operation, and its arguments as text. */
export interface Subject {
  operation: string;
  args: readonly (string | number)[];
}

/** The kernel refused a request. `errno` is symbolic; `hint` carries the kernel's own explanation. */
function refusal(subject: Subject, code: number, explanation: string | null): SystemError {
  const hint = explanation === null ? undefined : `the kernel says: ${explanation}`;
  return new SystemError(subject.operation, errnoToName(code), subject.args, hint);
}

/** Text of the extended acknowledgement in the error message `message`, or null. */
function extendedAck(message: Message): string | null {
  if ((message.flags & NLM_F_ACK_TLVS) === 0 || message.body.length < 4 + HEADER_LEN) return null;
  const request = message.body.readUInt32LE(4);
  const echoed = (message.flags & NLM_F_CAPPED) !== 0 ? HEADER_LEN : (request + 3) & ~3;
  return getString(parseAttributes(message.body, 4 + echoed), NLMSGERR_ATTR_MSG);
}

/** `struct sockaddr_nl`: family, port 0 (the kernel chooses), multicast groups as a bit mask. */
function sockaddrNl(groups: number): Buffer {
  const address = Buffer.alloc(SOCKADDR_NL_LEN);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  return address;
}

export class NetlinkSocket {
  readonly fd: number;
  readonly #buffer = Buffer.alloc(RECEIVE_BYTES);
  readonly #from = Buffer.alloc(SOCKADDR_NL_LEN);
  readonly #fromLength = Buffer.alloc(4);
  #sequence = 0;
  #closed = false;

  /** `groups`: RTMGRP_ bits whose notifications this socket receives. Throws SystemError. */
  constructor(groups = 0, protocol = NETLINK_ROUTE) {
    this.fd = openSocket(AF_NETLINK, SOCK_RAW, protocol);
    try {
      bindSocket(this.fd, sockaddrNl(groups));
      setSocketOption(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
      setSocketOption(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
      setTimeouts(this.fd, TIMEOUT_MS);
    } catch (error) {
      closeFd(this.fd);
      throw error;
    }
  }

  /**
   * Send one request and wait for its acknowledgement. Replies that came before it; usually none or one.
   * A refusal is a SystemError named after `subject`; a silent kernel ARK_TIMEOUT. Blocks.
   */
  request(type: number, flags: number, body: Uint8Array, subject: Subject): Message[] {
    const { replies } = this.#exchange(type, flags | NLM_F_ACK, body, subject);
    return replies;
  }

  /** Ask for all objects of a kind, again when they changed meanwhile. Blocks. */
  dump(type: number, body: Uint8Array, subject: Subject): Message[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS_MAX; attempt++) {
      const { replies, interrupted } = this.#exchange(type, NLM_F_DUMP, body, subject);
      if (!interrupted) return replies;
    }
    throw new SystemError(subject.operation, 'EAGAIN', subject.args, 'the list keeps changing');
  }

  #exchange(
    type: number,
    flags: number,
    body: Uint8Array,
    subject: Subject,
  ): { replies: Message[]; interrupted: boolean } {
    const sequence = this.#sequence++ % 0xffffffff;
    writeFd(this.fd, emitMessage(type, flags | NLM_F_REQUEST, sequence, body));
    const replies: Message[] = [];
    let interrupted = false;
    for (let turn = 0; turn < DATAGRAMS_MAX; turn++) {
      const messages = this.#receive(0);
      if (messages === 'empty') break;
      if (messages === 'lost') throw refusal(subject, ENOBUFS, 'replies were lost');
      for (const message of messages) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
          replies.push(message);
          continue;
        }
        const code = message.body.length < 4 ? 0 : message.body.readInt32LE(0);
        if (code < 0) throw refusal(subject, -code, extendedAck(message));
        return { replies, interrupted };
      }
    }
    throw new ArrakisError(
      'ARK_TIMEOUT',
      `${subject.operation}(${subject.args.join(', ')}): no answer from the kernel`,
    );
  }

  /**
   * Messages of the next datagram without waiting: 'empty' when there is none, 'lost' when the kernel
   * had to drop some because nobody read them in time.
   */
  receive(): Message[] | 'empty' | 'lost' {
    return this.#receive(MSG_DONTWAIT);
  }

  #receive(flags: number): Message[] | 'empty' | 'lost' {
    this.#fromLength.writeUInt32LE(SOCKADDR_NL_LEN);
    const buffer = this.#buffer;
    const length = recvfrom(
      this.fd,
      buffer,
      buffer.length,
      flags | MSG_TRUNC,
      this.#from,
      this.#fromLength,
    );
    if (length < 0) {
      const code = errno();
      if (code === ENOBUFS) return 'lost';
      if (code === EINTR) return [];
      if (code === EAGAIN) return 'empty';
      throw new SystemError('recvfrom', errnoName(), [this.fd]);
    }
    if (this.#from.readUInt32LE(4) !== 0) return [];
    return length > buffer.length ? 'lost' : parseMessages(buffer, length);
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeFd(this.fd);
  }
}

/** Run `use` on a socket of the calling thread's namespace that is closed afterwards. */
export function withNetlink<T>(use: (socket: NetlinkSocket) => T): T {
  const socket = new NetlinkSocket();
  try {
    return use(socket);
  } finally {
    socket.close();
  }
}
