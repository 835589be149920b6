/**
 * The Linux kernel as the subject: its end is the TAP's network interface in a namespace of its own, ours the TAP's
 * descriptor. All cases run side by side in real time, told apart by our port, so that their waits overlap.
 */
import fs from 'node:fs';
import { closeFd, POLLIN, pollOne, readFd, writeFd } from '../../../src/ffi/fd.ts';
import {
  addAddress,
  requireLink,
  setLinkUp,
  setNeighbour,
} from '../../../src/ffi/netlink/index.ts';
import { macBytes } from '../../../src/ffi/netlink/link.ts';
import { openTap } from '../../../src/ffi/tap.ts';
import { type Host, PEER, US } from '../../support/frames.ts';
import * as tcp from '../../support/kernel-tcp.ts';
import { disableIpv6 } from '../../support/network.ts';
import { portOfTcp } from '../../support/tcp-segment.ts';
import type { Failure, Listener, Socket, Subject } from './subject.ts';

const PORT_FIRST = 2000;
const PEER_PORT_FIRST = 20000;
const TAP = 'tcpconf';
/** The kernel remembers round trips and thresholds of a host; each case is to begin without. */
const SYSCTLS = {
  tcp_no_metrics_save: '1',
  tcp_fastopen: '0',
  tcp_ecn: '2',
  tcp_abort_on_overflow: '0',
};

const FAILURES: Readonly<Record<string, Failure>> = {
  ECONNRESET: 'reset',
  ECONNREFUSED: 'refused',
  ETIMEDOUT: 'timedOut',
  EHOSTUNREACH: 'unreachable',
  EPIPE: 'reset',
};

class KernelSocket implements Socket {
  received = new Uint8Array(0);
  ended = false;
  isOpen: boolean;
  failure: Failure | null = null;
  #fd: number;
  #paused = false;

  constructor(fd: number, isOpen: boolean) {
    this.#fd = fd;
    this.isOpen = isOpen;
  }

  /** Look what has become of it. */
  pump(): void {
    if (this.#fd < 0) return;
    if (!this.isOpen) {
      const error = tcp.errorOfTcp(this.#fd);
      if (error !== null) this.#fail(error);
      this.isOpen = error === null && tcp.isConnectedTcp(this.#fd);
      if (!this.isOpen) return;
    }
    while (!this.#paused && !this.ended && this.failure === null) {
      const got = tcp.receiveTcp(this.#fd);
      if (got === null) return;
      if (typeof got === 'string') this.#fail(got);
      else if (got.length === 0) this.ended = true;
      else this.received = Buffer.concat([this.received, got]);
    }
    const error = tcp.errorOfTcp(this.#fd);
    if (error !== null) this.#fail(error);
  }

  write(bytes: Uint8Array): number {
    const sent = tcp.sendTcp(this.#fd, bytes);
    if (typeof sent === 'number') return sent;
    this.#fail(sent);
    return 0;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.pump();
  }

  end(): void {
    tcp.endTcp(this.#fd);
  }

  abort(): void {
    if (this.#fd >= 0) tcp.abortTcp(this.#fd);
    this.#fd = -1;
    this.failure ??= 'aborted';
  }

  noDelay(on: boolean): void {
    tcp.setNoDelayTcp(this.#fd, on);
  }

  keepAlive(idleS: number, intervalS: number, probes: number): void {
    tcp.setKeepAliveTcp(this.#fd, idleS, intervalS, probes);
  }

  userTimeout(ms: number): void {
    tcp.setUserTimeoutTcp(this.#fd, ms);
  }

  #fail(error: string): void {
    this.failure ??= FAILURES[error] ?? error;
  }
}

class KernelListener implements Listener {
  readonly accepted: KernelSocket[] = [];
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  pump(): void {
    while (this.#fd >= 0) {
      const fd = tcp.acceptTcp(this.#fd);
      if (fd < 0) break;
      this.accepted.push(new KernelSocket(fd, true));
    }
    for (const socket of this.accepted) socket.pump();
  }

  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}

interface Arrival {
  readonly frame: Uint8Array;
  readonly ms: readonly [number, number];
}

interface Waiter {
  readonly untilMs: number;
  /** False: wait for the time only. */
  readonly takesFrames: boolean;
  readonly resolve: (frame: Uint8Array | null) => void;
}

class KernelSubject implements Subject {
  readonly name = 'kernel';
  readonly port: number;
  readonly peerPort: number;
  readonly peer: Host;
  readonly inbox: Arrival[] = [];
  arrivalMs: readonly [number, number] = [0, 0];
  waiter: Waiter | null = null;
  readonly #lab: KernelLab;
  readonly #listeners: KernelListener[] = [];
  readonly #sockets: KernelSocket[] = [];

  constructor(lab: KernelLab, index: number, peer: Host) {
    this.#lab = lab;
    this.peer = peer;
    this.port = PORT_FIRST + index;
    this.peerPort = PEER_PORT_FIRST + index;
  }

  get nowMs(): number {
    return performance.now();
  }

  listen(options: { backlog?: number } = {}): Listener {
    const listener = new KernelListener(tcp.listenTcp(US.ip, this.port, options.backlog ?? 16));
    this.#listeners.push(listener);
    return listener;
  }

  connect(): Socket {
    const fd = tcp.connectTcp(US.ip, this.port, this.peer.ip, this.peerPort);
    const socket = new KernelSocket(fd, false);
    this.#sockets.push(socket);
    return socket;
  }

  send(frame: Uint8Array): void {
    this.#lab.write(frame);
    this.pump();
  }

  next(untilMs: number): Promise<Uint8Array | null> {
    return new Promise((resolve) => {
      this.waiter = { untilMs, takesFrames: true, resolve };
      this.#lab.wake();
    });
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await new Promise((resolve) => {
      this.waiter = { untilMs, takesFrames: false, resolve };
      this.#lab.wake();
    });
  }

  pump(): void {
    for (const listener of this.#listeners) listener.pump();
    for (const socket of this.#sockets) socket.pump();
  }

  /** Hand over a frame, or say that the time has come. */
  serve(nowMs: number): void {
    const { waiter } = this;
    if (waiter === null) return;
    const arrival = waiter.takesFrames ? this.inbox.shift() : undefined;
    if (arrival === undefined && nowMs < waiter.untilMs) return;
    this.waiter = null;
    if (arrival !== undefined) this.arrivalMs = arrival.ms;
    waiter.resolve(arrival?.frame ?? null);
  }

  async finish(): Promise<void> {
    for (const listener of this.#listeners) {
      for (const socket of listener.accepted) socket.abort();
      listener.close();
    }
    for (const socket of this.#sockets) socket.abort();
    this.#lab.forget(this);
  }
}

/** The TAP, and the loop that reads it while any case waits. The process must be in a namespace of its own. */
export class KernelLab {
  readonly #fd: number;
  readonly #mac: Uint8Array;
  readonly #index: number;
  /** When the TAP was last seen empty. */
  #emptyMs = 0;
  readonly #subjects = new Map<number, KernelSubject>();
  readonly #buffer = Buffer.alloc(2048);
  #running = false;
  #count = 0;

  constructor() {
    for (const [name, value] of Object.entries(SYSCTLS)) {
      fs.writeFileSync(`/proc/sys/net/ipv4/${name}`, value);
    }
    const tap = openTap({ name: TAP });
    this.#fd = tap.fd;
    const { index, mac } = requireLink(tap.name);
    this.#mac = macBytes(mac);
    disableIpv6(tap.name);
    this.#index = index;
    addAddress(index, US.ip, 16);
    setLinkUp(index);
  }

  subject(): Subject {
    // A host of its own: the kernel remembers the MTU of the path to each.
    const index = this.#count++;
    const peer = { mac: PEER.mac, ip: PEER.ip + 256 + index };
    setNeighbour(this.#index, peer.ip, peer.mac);
    const subject = new KernelSubject(this, index, peer);
    this.#subjects.set(subject.peerPort, subject);
    return subject;
  }

  /** The frames of the cases are for US; the TAP has a MAC address of its own. */
  write(frame: Uint8Array): void {
    const bytes = frame.slice();
    bytes.set(this.#mac, 0);
    writeFd(this.#fd, bytes);
  }

  wake(): void {
    if (this.#running) return;
    this.#running = true;
    setImmediate(() => this.#loop());
  }

  forget(subject: KernelSubject): void {
    this.#subjects.delete(subject.peerPort);
  }

  close(): void {
    closeFd(this.#fd);
  }

  #loop(): void {
    pollOne(this.#fd, POLLIN, 1);
    this.#read();
    let isWaiting = false;
    for (const subject of this.#subjects.values()) {
      if (subject.waiter !== null) subject.pump();
      subject.serve(performance.now());
      isWaiting ||= subject.waiter !== null;
    }
    if (isWaiting) setImmediate(() => this.#loop());
    else this.#running = false;
  }

  #read(): void {
    for (;;) {
      const beforeMs = performance.now();
      const length = readFd(this.#fd, this.#buffer);
      if (length <= 0) {
        this.#emptyMs = beforeMs;
        return;
      }
      const frame = Uint8Array.from(this.#buffer.subarray(0, length));
      // A malformed segment is its case's to find.
      const port = portOfTcp(frame);
      const ms = [this.#emptyMs, performance.now()] as const;
      this.#subjects.get(port)?.inbox.push({ frame, ms });
    }
  }
}
