/** Ports that `connect` and `listen` choose themselves: RFC 6056, algorithm 3, a hash of the other end and a counter. */
import { NET_LIMITS } from '../limits.ts';

const FIRST = NET_LIMITS.tcpDynamicPortMin;
const COUNT = NET_LIMITS.tcpDynamicPortMax - FIRST + 1;

export class Ports {
  #next = 0;

  /** The first port that `isFree`, starting where `hash` (of the other end) and what was given before say; 0: none. */
  choose(hash: number, isFree: (port: number) => boolean): number {
    const start = (hash >>> 0) % COUNT;
    for (let i = 0; i < COUNT; i++) {
      const port = FIRST + ((start + this.#next++) % COUNT);
      if (isFree(port)) return port;
    }
    return 0;
  }
}
