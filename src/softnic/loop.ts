/**
 * The software NIC's one loop. Synchronous: this process does not use Node's event loop.
 *
 * - A turn polls every port's transmit queue and the uplink, and shows each receiver its batch once.
 * - While there is work, sockets are looked at every SOCKETS_TURNS turns. With none, the loop spins for `spinUs`,
 *   yielding its core to whoever has work; then it asks all queues for kicks, looks once more, and sleeps in epoll.
 * - What is held back by a limit, and doorbells that are coalesced, bound that sleep. Held senders are not spun for, and
 *   do not keep the loop from spinning for others: their frames would be late because somebody else sends too much.
 * - Only `NicHost.events` changes ports and memory, and never within a turn.
 */
import { EPOLLET, EPOLLIN, EPOLLRDHUP, Epoll } from '../ffi/epoll.ts';
import { schedYield } from '../ffi/process.ts';
import type { Pace } from './pace.ts';
import type { Port } from './port.ts';
import type { Switch } from './switch.ts';

const SOCKETS_TURNS = 64;
const IDLE_TURNS_PER_LOOK = 16;

/** Descriptors that the loop waits for, and what to do when one is readable. */
export class Watches {
  readonly #epoll = new Epoll();
  readonly #handlers = new Map<number, () => void>();

  /** Call `onReadable` when `fd` can be read or has hung up. */
  add(fd: number, onReadable: () => void): void {
    this.#epoll.add(fd, EPOLLIN | EPOLLRDHUP);
    this.#handlers.set(fd, onReadable);
  }

  /** Only wake up. Edge-triggered, as a peer's eventfd is never read: its reads and writes are the peer's affair. */
  addKick(fd: number): void {
    this.#epoll.add(fd, EPOLLIN | EPOLLET);
  }

  /** Before `fd` is closed. */
  remove(fd: number): void {
    this.#epoll.remove(fd);
    this.#handlers.delete(fd);
  }

  /** Wait up to `timeoutUs` (0: only look, -1: for ever) and handle what came. The number of events, kicks included. */
  wait(timeoutUs: number): number {
    const count = timeoutUs > 0 ? this.#epoll.waitUs(timeoutUs) : this.#epoll.wait(timeoutUs);
    // A handler may remove the descriptor of a later event: that one then has no handler.
    for (let i = 0; i < count; i++) this.#handlers.get(this.#epoll.readyFd(i))?.();
    return count;
  }
}

/** What the loop runs. */
export interface LoopHost {
  readonly watches: Watches;
  readonly switch: Switch;
  readonly pace: Pace;
  /** The ports now; the array changes only in `settle`. */
  readonly ports: readonly Port[];
  /** After events and turns: look at rings that changed, send what is to be told. */
  settle(): void;
  /** False when the control plane is gone. */
  readonly running: boolean;
  readonly spinUs: number;
}

/** Poll everything once. Frames and chains that were moved. */
export function turn(host: LoopHost): number {
  const { ports, pace } = host;
  if (pace.isTimed) pace.tick();
  let work = 0;
  if (pace.scheduler !== null) work = pace.scheduler.round(ports, pace.link, host.switch);
  else for (let i = 0; i < ports.length; i++) work += ports[i]!.poll(host.switch);
  const { uplink } = host.switch;
  const came = uplink === null ? 0 : uplink.poll(host.switch);
  if (came > 0) pace.isLively = true;
  work += came;
  // Doorbells may be due without new frames.
  if (work > 0 || pace.isTimed) for (let i = 0; i < ports.length; i++) ports[i]!.publish();
  return work;
}

/** Serve until the control plane is gone. `nowUs` is monotonicUs32 of ffi/clock.ts. */
export function run(host: LoopHost, nowUs: () => number): void {
  let busyTurns = 0;
  let idleTurns = 0;
  // Any other number could lie ahead of the clock, which wraps: the loop would not sleep before it is reached.
  let idleSinceUs = (nowUs() - host.spinUs) | 0;
  while (host.running) {
    if (turn(host) > 0) {
      idleTurns = 0;
      if (++busyTurns < SOCKETS_TURNS) continue;
      busyTurns = 0;
      look(host, 0);
      continue;
    }
    idleTurns++;
    if (host.pace.isLively) {
      host.pace.isLively = false;
      idleSinceUs = nowUs();
    }
    if (idleTurns % IDLE_TURNS_PER_LOOK !== 0) continue;
    look(host, 0);
    if (((nowUs() - idleSinceUs) | 0) < host.spinUs && host.pace.isLinkOpen) {
      schedYield();
      continue;
    }
    if (host.pace.isTimed) host.pace.tick();
    if (armAll(host)) look(host, host.pace.sleepUs(host.ports));
    disarmAll(host);
    // Not so long ago that the clock wraps around it.
    idleSinceUs = (nowUs() - host.spinUs) | 0;
    idleTurns = 0;
  }
}

function look(host: LoopHost, timeoutUs: number): number {
  const events = host.watches.wait(timeoutUs);
  host.settle();
  return events;
}

/** Ask every queue for a kick. False when one has something by now. */
function armAll(host: LoopHost): boolean {
  let quiet = host.switch.uplink?.readable !== true;
  // A kick could not be answered before the link is free again.
  if (!host.pace.isLinkOpen) return quiet;
  for (const port of host.ports) quiet = port.arm() && quiet;
  return quiet;
}

function disarmAll(host: LoopHost): void {
  for (const port of host.ports) port.disarm();
}
