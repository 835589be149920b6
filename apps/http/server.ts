/** A static web server on one network interface: a listener, its sessions, and the clock that ends idle ones. */
import type { FrameMemory, NetInterface, TcpListener } from '../../src/arrakis/index.ts';
import { FileTree } from './files.ts';
import { HttpDate } from './response.ts';
import { type HttpCounters, newHttpCounters, Session, type SessionHost } from './session.ts';

export interface HttpOptions {
  /** Directory whose files are served. */
  readonly root: string;
  readonly port: number;
  /** Frame memory of the interface's queue. */
  readonly memory: FrameMemory;
  /** Called when something was queued outside of a turn: `PollLoop.wake`. */
  wake(): void;
  /** A connection that says nothing for so long is closed. Default 30. */
  readonly idleSeconds?: number;
  readonly backlog?: number;
  /** Milliseconds since 1970. Default `Date.now`. */
  readonly nowMs?: () => number;
}

export interface HttpServer {
  readonly counters: HttpCounters;
  /** Open connections. */
  readonly open: number;
  /** Take no more connections, and end those there are. Idempotent. */
  close(): void;
}

const IDLE_SECONDS = 30;
const BACKLOG = 1024;
const TICK_MS = 1000;

/** Serve on TCP `port` of `net` from now on. Throws what `tcp.listen` throws, and what the root's lookup throws. */
export function serveHttp(net: NetInterface, options: HttpOptions): HttpServer {
  const { root, port, memory, backlog = BACKLOG, idleSeconds = IDLE_SECONDS } = options;
  const nowMs = options.nowMs ?? Date.now;
  const sessions = new Set<Session>();
  const host: SessionHost = {
    u8: memory.u8,
    files: new FileTree(root, nowMs),
    date: new HttpDate(nowMs),
    counters: newHttpCounters(),
    tick: 0,
    largeFiles: 0,
    wake: options.wake,
    ended: (session) => sessions.delete(session),
  };
  const listener: TcpListener = net.tcp.listen({
    port,
    backlog,
    onConnection(connection) {
      const session = new Session(host, connection);
      sessions.add(session);
      host.counters.connections++;
      return session;
    },
  });
  const clock = setInterval(() => {
    host.tick++;
    for (const session of sessions) {
      if (session.isOverdue(idleSeconds)) session.timeOut();
    }
  }, TICK_MS);
  // A server that nobody polls any more keeps no process.
  clock.unref();
  return {
    counters: host.counters,
    get open() {
      return sessions.size;
    },
    close() {
      clearInterval(clock);
      listener.close();
      for (const session of [...sessions]) session.connection.abort();
    },
  };
}
