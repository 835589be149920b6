/**
 * Descriptors in Node's event loop: any that poll(2) takes (eventfd, AF_XDP and Unix sockets, netlink, TAP).
 * Level-triggered: the callback comes again until the descriptor was read empty.
 */
import koffi from 'koffi';

export class FdWatch {
  readonly fd: number;
  #handle: ReturnType<typeof koffi.node.poll> | null;

  /** Call `onReadable` whenever `fd` can be read or has hung up. The watch does not own `fd`. */
  constructor(fd: number, onReadable: () => void) {
    this.fd = fd;
    this.#handle = koffi.node.poll(fd, { readable: true, disconnect: true }, onReadable);
  }

  /** Do not let this watch alone keep the process alive. */
  unref(): this {
    this.#handle?.unref();
    return this;
  }

  ref(): this {
    this.#handle?.ref();
    return this;
  }

  /** Stop watching; call it before `fd` is closed. Idempotent. */
  close(): void {
    this.#handle?.close();
    this.#handle = null;
  }
}

/** Resolves when `fd` is readable (true) or after `timeoutMs` (false). */
export function readable(fd: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => finish(false), timeoutMs);
    const watch = new FdWatch(fd, () => finish(true));
    function finish(result: boolean): void {
      clearTimeout(timer);
      watch.close();
      resolve(result);
    }
  });
}
