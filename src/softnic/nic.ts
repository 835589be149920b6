/**
 * The software NIC as the control plane sees it: ports, filters, the uplink, counters. It owns every descriptor that
 * it was handed. A request is decoded first, then done; what fails half-way is undone and reported.
 */
import fs from 'node:fs';
import { ArrakisError, isErrno, SystemError } from '../base/errors.ts';
import { namedDrops } from '../device/drops.ts';
import type { RateSetting } from '../device/rate.ts';
import { Arena } from '../ffi/arena.ts';
import { monotonicUs32 } from '../ffi/clock.ts';
import { closeAll, closeFd, closeLater, setNonBlocking } from '../ffi/fd.ts';
import { setAffinity } from '../ffi/process.ts';
import {
  acceptUnix,
  listenUnix,
  type Received,
  receiveMessage,
  SOCK_STREAM,
  sendMessage,
} from '../ffi/unix.ts';
import type { BackendHost } from '../ring/vhost-backend.ts';
import {
  type AddPort,
  MESSAGE_LEN_MAX,
  parseRequest,
  type Request,
  requestId,
  type SetCoalescing,
} from './control.ts';
import { type LoopHost, Watches } from './loop.ts';
import { Staging } from './offload.ts';
import { Pace } from './pace.ts';
import type { QueuePair } from './pair.ts';
import { NIC_PARTS, type NicParts } from './parts.ts';
import { Port } from './port.ts';
import { PORTS_MAX, type Switch } from './switch.ts';
import { Uplink } from './uplink.ts';

const FDS_MAX = 4;
const REQUESTS_MAX = 16;
/** Answers that wait for a control plane that does not read. More than this and it is taken for dead. */
const OUTBOX_MAX = 4096;
const SPIN_US_DEFAULT = 200;

export class SoftNic implements LoopHost, BackendHost {
  readonly arena = new Arena();
  readonly watches = new Watches();
  readonly switch: Switch;
  readonly pace = new Pace(monotonicUs32);
  ports: readonly Port[] = [];
  running = true;
  spinUs = SPIN_US_DEFAULT;
  readonly #parts: NicParts;
  readonly #controlFd: number;
  readonly #staging: Staging;
  readonly #request = Buffer.alloc(MESSAGE_LEN_MAX);
  readonly #outbox: Buffer[] = [];
  /** Events that wait, the last of its kind of each port: a client can bring them about as often as it likes. */
  readonly #states = new Map<string, Buffer>();
  #ringsChanged = false;

  /** `controlFd` is the channel of the control plane; its end is the NIC's end. */
  constructor(controlFd: number, parts: NicParts = NIC_PARTS) {
    setNonBlocking(controlFd);
    this.#parts = parts;
    this.#controlFd = controlFd;
    this.#staging = new Staging(this.arena);
    this.switch = new parts.Switch(parts.window(this.arena, this.#staging));
    this.watches.add(controlFd, () => this.#onControl());
  }

  watchKick(fd: number): void {
    this.watches.addKick(fd);
  }

  unwatchKick(fd: number): void {
    this.watches.remove(fd);
  }

  ringsChanged(): void {
    this.#ringsChanged = true;
  }

  settle(): void {
    if (this.#ringsChanged) {
      this.#ringsChanged = false;
      for (const port of this.ports) {
        if (port.refresh()) this.#tellState(port);
        for (const pair of port.pairs) if (pair.isBreakUntold) this.#tellBroken(port, pair);
      }
    }
    this.#flush();
  }

  #onControl(): void {
    for (let i = 0; i < REQUESTS_MAX; i++) {
      const received = this.#receive();
      if (received === null) return;
      const text = this.#request.toString('utf8', 0, received.length);
      try {
        if (received.truncated) {
          throw new ArrakisError('ARK_BAD_MESSAGE', 'a control message is too long');
        }
        const request = parseRequest(text);
        this.#tell({ id: request.id, ok: true, ...this.#act(request, received.fds) });
      } catch (error) {
        // Whatever one request meets is its own failure: everybody else's ports go on.
        const code = error instanceof ArrakisError ? error.code : 'ARK_DEVICE';
        const message = error instanceof Error ? error.message : String(error);
        this.#tell({ id: requestId(text), ok: false, code, message });
      } finally {
        closeAll(received.fds);
      }
    }
  }

  /** The next request; null when there is none, for now or for ever. */
  #receive(): Received | null {
    try {
      const received = receiveMessage(this.#controlFd, this.#request, FDS_MAX);
      if (received === null || received.length > 0) return received;
    } catch (error) {
      // It went without reading our last messages.
      if (!isErrno(error, 'ECONNRESET')) throw error;
    }
    this.running = false;
    return null;
  }

  /** Do what was asked; what is kept of `fds` is taken out of it. */
  #act(request: Request, fds: number[]): object {
    switch (request.op) {
      case 'addPort':
        return this.#addPort(request, fds);
      case 'setFilters': {
        const port = this.#port(request.port);
        const { filters, transmit } = request;
        const { Filters } = this.#parts;
        port.filters = new Filters(port.mac, filters, transmit, port.filters.addresses6);
        return {};
      }
      case 'setRate':
        this.#setRates(this.#port(request.port), [request.rate]);
        return {};
      case 'setCoalescing':
        this.#setCoalescing(this.#port(request.port), [request.coalescing]);
        return {};
      case 'linkRate':
        this.pace.setLink(request.limit, this.ports);
        return {};
      case 'removePort':
        this.#removePort(this.#port(request.port));
        return {};
      case 'uplink':
        this.#setUplink(fds, request.mac ?? -1);
        return {};
      case 'stats':
        return this.#stats();
      case 'spin':
        this.spinUs = request.us;
        return {};
      case 'affinity':
        setAffinity(request.cpus);
        return {};
    }
  }

  #port(id: number): Port {
    const port = this.ports.find((p) => p.id === id);
    if (port === undefined) throw new ArrakisError('ARK_NOT_FOUND', `no port ${id}`);
    return port;
  }

  #addPort(request: AddPort, fds: number[]): object {
    const { port: id, mac } = request;
    if (this.ports.some((p) => p.id === id || p.mac === mac)) {
      throw new ArrakisError('ARK_IN_USE', `port ${id} or its MAC address exists`);
    }
    if (this.ports.length === PORTS_MAX) {
      throw new ArrakisError('ARK_LIMIT', `the software NIC has ${PORTS_MAX} ports`);
    }
    if (fds.length !== (request.listen === undefined ? 1 : 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', 'addPort takes one connected socket, or `listen`');
    }
    const listenFd = request.listen === undefined ? -1 : listenAt(request.listen, request.mode);
    const port = new Port(this.arena, this.#staging, this.pace, {
      id,
      mac,
      filters: new this.#parts.Filters(mac, request.filters, request.transmit, request.addresses6),
      mtu: request.mtu,
      pairs: request.pairs,
      allowUnsealed: request.allowUnsealed,
      regionBytes: request.regionBytes,
      listenFd,
      listenPath: request.listen ?? '',
      parts: this.#parts,
    });
    this.#setPorts([...this.ports, port]);
    try {
      this.#setRates(port, request.rates);
      this.#setCoalescing(port, request.coalescing);
      if (listenFd >= 0) this.watches.add(listenFd, () => this.#onClient(port));
      else this.#connect(port, fds.splice(0)[0]!);
    } catch (error) {
      // Nothing of it is watched: only the port is to be undone.
      if (listenFd >= 0) closeFd(listenFd);
      if (listenFd >= 0) removeSocket(port.listenPath);
      port.disconnect('it was not made');
      this.#setPorts(this.ports.filter((p) => p !== port));
      throw error;
    }
    return {};
  }

  #setPorts(ports: readonly Port[]): void {
    this.ports = ports;
    this.switch.setPorts(ports);
    this.pace.reset(ports);
  }

  #setRates(port: Port, rates: readonly RateSetting[]): void {
    for (const { queue } of rates) requireQueue(port, queue);
    this.pace.tick();
    for (const rate of rates) port.setRate(rate);
    this.pace.reset(this.ports);
  }

  #setCoalescing(port: Port, all: readonly SetCoalescing[]): void {
    for (const { queue } of all) requireQueue(port, queue);
    this.pace.tick();
    for (const { queue, ...coalescing } of all) port.setCoalescing(queue, coalescing);
    this.pace.reset(this.ports);
  }

  #removePort(port: Port): void {
    if (port.listenFd >= 0) {
      // While a client is connected nobody else is waited for.
      if (port.session === null) this.watches.remove(port.listenFd);
      // Whoever waits to be accepted may have sent descriptors.
      closeLater(port.listenFd);
      removeSocket(port.listenPath);
    }
    this.#disconnect(port, 'the port was removed');
    this.#setPorts(this.ports.filter((p) => p !== port));
  }

  /** A driver connects to a listening port. While one is connected, the next waits. */
  #onClient(port: Port): void {
    const fd = acceptUnix(port.listenFd);
    if (fd < 0) return;
    this.watches.remove(port.listenFd);
    this.#connect(port, fd);
  }

  #connect(port: Port, fd: number): void {
    try {
      port.connect(fd, this);
    } catch (error) {
      closeLater(fd);
      throw error;
    }
    this.watches.add(fd, () => {
      const ended = port.session?.onReadable() ?? null;
      if (ended === null) return;
      this.#disconnect(port, ended);
      if (port.listenFd >= 0) this.watches.add(port.listenFd, () => this.#onClient(port));
    });
  }

  #disconnect(port: Port, reason: string): void {
    if (port.session === null) return;
    this.watches.remove(port.session.fd);
    port.disconnect(reason);
    this.#tellState(port);
  }

  #setUplink(fds: number[], mac: number): void {
    if (fds.length > 1) throw new ArrakisError('ARK_BAD_ARGUMENT', 'uplink takes one descriptor');
    const old = this.switch.uplink;
    if (old !== null) {
      this.watches.remove(old.fd);
      this.switch.uplink = null;
      old.close();
    }
    const fd = fds.shift();
    if (fd === undefined) return;
    const uplink = new Uplink(this.arena, this.#staging, fd, mac);
    try {
      this.watches.add(fd, () => {
        uplink.readable = true;
      });
    } catch (error) {
      uplink.close();
      throw error;
    }
    this.switch.uplink = uplink;
  }

  #stats(): object {
    const { uplink, uplinkDrops } = this.switch;
    return {
      ports: this.ports.map((port) => port.stats()),
      uplink: uplink === null ? null : { ...uplink.stats(), drops: namedDrops(uplinkDrops) },
      mappedBytes: this.arena.mappedBytes,
    };
  }

  #tellState({ id, state, reason }: Port): void {
    // That a queue was broken is told whatever came after it.
    const kind = state === 'broken' ? `${id} broken` : `${id}`;
    this.#states.delete(kind);
    this.#states.set(kind, encode({ event: 'portState', port: id, state, reason }));
    this.#flush();
  }

  /** Of a port that goes on: that of another says it all. */
  #tellBroken({ id, state }: Port, pair: QueuePair): void {
    pair.isBreakUntold = false;
    if (state !== 'up') return;
    const { index: queue, brokenReason: reason } = pair;
    const kind = `${id} queue ${queue}`;
    this.#states.delete(kind);
    this.#states.set(kind, encode({ event: 'queueBroken', port: id, queue, reason }));
    this.#flush();
  }

  #tell(message: object): void {
    this.#outbox.push(encode(message));
    this.#flush();
  }

  #flush(): void {
    if (this.#outbox.length > OUTBOX_MAX) this.running = false;
    try {
      while (this.#outbox.length > 0) {
        if (sendMessage(this.#controlFd, this.#outbox[0]!) < 0) return;
        this.#outbox.shift();
      }
      // This runs every few turns, and an iterator is garbage.
      if (this.#states.size === 0) return;
      for (const [kind, message] of this.#states) {
        if (sendMessage(this.#controlFd, message) < 0) return;
        this.#states.delete(kind);
      }
    } catch (error) {
      if (!isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
      this.running = false;
    }
  }
}

const encode = (message: object): Buffer => Buffer.from(JSON.stringify(message));

function requireQueue(port: Port, queue: number | null): void {
  if (queue === null || queue < port.pairs.length) return;
  const text = `port ${port.id} has ${port.pairs.length} queue pairs, and no queue ${queue}`;
  throw new ArrakisError('ARK_BAD_ARGUMENT', text);
}

/** A listening socket at `path`; one that a dead process left there is replaced, and nothing else is. */
function listenAt(path: string, mode: number): number {
  try {
    const there = fs.lstatSync(path, { throwIfNoEntry: false });
    if (there !== undefined) {
      if (!there.isSocket()) throw new ArrakisError('ARK_IN_USE', `"${path}" is not a socket`);
      fs.unlinkSync(path);
    }
    const fd = listenUnix(path, SOCK_STREAM);
    try {
      fs.chmodSync(path, mode);
    } catch (error) {
      closeFd(fd);
      removeSocket(path);
      throw error;
    }
    return fd;
  } catch (error) {
    // A path that cannot be used is the request's failure, not the device's.
    const { syscall, code } = error as NodeJS.ErrnoException;
    if (error instanceof ArrakisError || syscall === undefined || code === undefined) throw error;
    throw new SystemError(syscall, code, [path]);
  }
}

/** A socket in a directory that we may not write any more stays: whoever listens there next replaces it. */
function removeSocket(path: string): void {
  try {
    if (fs.lstatSync(path).isSocket()) fs.unlinkSync(path);
  } catch {
    // Nobody serves it.
  }
}
