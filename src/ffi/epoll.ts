/**
 * epoll(7), for device processes that own their thread and wait in the kernel instead of in Node's event loop.
 * One instance waits for up to EVENTS_MAX descriptors at a time; a descriptor is known by its number.
 */
import { assert } from '../base/assert.ts';
import { closeFd } from './fd.ts';
import { addressOf, bind, check, EINTR, ENOSYS, EPERM, errno } from './libc.ts';

const epollCreate1 = bind<(flags: number) => number>('epoll_create1', 'int', ['int']);
const epollCtl = bind<(epfd: number, op: number, fd: number, event: Uint8Array) => number>(
  'epoll_ctl',
  'int',
  ['int', 'int', 'int', 'void *'],
);
const epollWait = bind<(epfd: number, events: number, max: number, timeoutMs: number) => number>(
  'epoll_wait',
  'int',
  ['int', 'uintptr_t', 'int', 'int'],
);

const syscall = bind<
  (
    number: number,
    epfd: number,
    events: number,
    max: number,
    timespec: number,
    mask: number,
    maskBytes: number,
  ) => number
>('syscall', 'long', ['long', 'int', 'uintptr_t', 'int', 'uintptr_t', 'uintptr_t', 'size_t']);
/** Linux 5.11; older C libraries have no wrapper for it. */
const SYS_EPOLL_PWAIT2 = 441;
const US_PER_S = 1_000_000;

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
export const EPOLLIN = 0x001;
export const EPOLLRDHUP = 0x2000;
/** Report a change once: for descriptors that are never read, such as another process's eventfd. */
export const EPOLLET = 0x8000_0000;

const EVENTS_MAX = 64;
/** struct epoll_event is packed on x86-64: events u32, data u64. */
const EVENT_LEN = 12;

export class Epoll {
  readonly #fd: number;
  readonly #events = Buffer.alloc(EVENTS_MAX * EVENT_LEN);
  /**
   * The call, with the buffer's address as a constant: a call with the buffer itself allocates 30 bytes, a number read
   * from a field may be boxed, and an idle device looks often.
   */
  readonly #call: (timeoutMs: number) => number;
  readonly #callUs: () => number;
  /** struct timespec {s64 seconds, s64 nanoseconds}: the low words are written. */
  readonly #timeout: Int32Array;
  readonly #control = Buffer.alloc(EVENT_LEN);

  constructor() {
    const fd = check(epollCreate1(EPOLL_CLOEXEC), 'epoll_create1');
    const events = addressOf(this.#events);
    this.#fd = fd;
    this.#call = (timeoutMs) => epollWait(fd, events, EVENTS_MAX, timeoutMs);
    const timespec = Buffer.alloc(16);
    this.#timeout = new Int32Array(timespec.buffer, timespec.byteOffset, 4);
    const timeout = addressOf(timespec);
    this.#callUs = () => syscall(SYS_EPOLL_PWAIT2, fd, events, EVENTS_MAX, timeout, 0, 0);
  }

  /** Wait for `events` on `fd`. Throws EPERM for what cannot be polled, such as a plain file. */
  add(fd: number, events: number): void {
    this.#control.writeUInt32LE(events >>> 0, 0);
    this.#control.writeUInt32LE(fd, 4);
    check(epollCtl(this.#fd, EPOLL_CTL_ADD, fd, this.#control), 'epoll_ctl', 'add', fd);
  }

  /** No longer wait for `fd`. Needed before a close: another process may keep the open file alive. */
  remove(fd: number): void {
    check(epollCtl(this.#fd, EPOLL_CTL_DEL, fd, this.#control), 'epoll_ctl', 'del', fd);
  }

  /** Wait up to `timeoutMs` (0: only look, -1: for ever). The number of events, to be read with `readyFd`. */
  wait(timeoutMs: number): number {
    const count = this.#call(timeoutMs);
    if (count >= 0) return count;
    if (errno() !== EINTR) check(count, 'epoll_wait', timeoutMs);
    return 0;
  }

  /** Wait up to `timeoutUs`, as exactly as the thread's timer slack lets it (prctl(2), PR_SET_TIMERSLACK: 50 us). */
  waitUs(timeoutUs: number): number {
    this.#timeout[0] = timeoutUs / US_PER_S;
    this.#timeout[2] = (timeoutUs % US_PER_S) * 1000;
    const count = this.#callUs();
    if (count >= 0) return count;
    const code = errno();
    // An older kernel, or a filter of system calls that does not know it.
    if (code === ENOSYS || code === EPERM) return this.wait(Math.ceil(timeoutUs / 1000));
    if (code !== EINTR) check(count, 'epoll_pwait2', timeoutUs);
    return 0;
  }

  /** Descriptor of event `index` of the last `wait`. */
  readyFd(index: number): number {
    assert(index >= 0 && index < EVENTS_MAX, 'an event of this wait');
    return this.#events.readInt32LE(index * EVENT_LEN + 4);
  }

  close(): void {
    closeFd(this.#fd);
  }
}
