/**
 * Network namespaces held by a descriptor: they end when the descriptor and the last process in them do, so a
 * killed owner leaves none behind. Namespaces belong to threads; everything here acts on the calling one.
 */
import fs from 'node:fs';
import { closeFd } from './fd.ts';
import { linkByName, setLinkUp } from './netlink/index.ts';
import { setNetwork, unshareNetwork } from './process.ts';

const openOwn = (): number => fs.openSync('/proc/thread-self/ns/net', 'r');

export class NetworkNamespace {
  #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** A new namespace with nothing in it but a loopback interface that is up. Needs CAP_SYS_ADMIN. */
  static create(): NetworkNamespace {
    const home = openOwn();
    try {
      unshareNetwork();
      try {
        const made = new NetworkNamespace(openOwn());
        setLinkUp(linkByName('lo')!.index);
        return made;
      } finally {
        setNetwork(home, 'home');
      }
    } finally {
      closeFd(home);
    }
  }

  /** The namespace that the calling thread is in. */
  static current(): NetworkNamespace {
    return new NetworkNamespace(openOwn());
  }

  /**
   * Call `body` with the thread inside this namespace: sockets it opens and processes it spawns are in there.
   * `body` must be synchronous, or other code of this thread would run in here too.
   */
  run<T>(body: () => T): T {
    const home = openOwn();
    try {
      setNetwork(this.#fd);
      try {
        return body();
      } finally {
        setNetwork(home, 'home');
      }
    } finally {
      closeFd(home);
    }
  }

  /** The descriptor, for moving links here. Stays owned by this object. */
  get fd(): number {
    return this.#fd;
  }

  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}
