/**
 * Polling one's own interface: a system call that finds nothing runs the interface's receive path here and now.
 *
 * An AF_XDP socket can do that itself where the driver tells the kernel which NAPI serves a queue. veth does not (as of
 * Linux 6.18: SO_INCOMING_NAPI_ID of such a socket is 0), so a UDP socket beside it does: it learns its NAPI from a
 * datagram that came in by the interface.
 */
import type { Ipv4 } from '../../src/base/address.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { closeFd, readFd, writeFd } from '../../src/ffi/fd.ts';
import { connectUdp } from '../../src/ffi/inet.ts';
import { check } from '../../src/ffi/libc.ts';
import { NetworkNamespace } from '../../src/ffi/network-namespace.ts';
import { enterNetwork, setNetwork } from '../../src/ffi/process.ts';
import {
  AF_INET,
  bindSocket,
  getsockopt,
  openSocket,
  SOCK_DGRAM,
  setSocketOption,
} from '../../src/ffi/socket.ts';
import { xskReceive } from '../../src/ffi/xsk.ts';

// asm-generic/socket.h
const SOL_SOCKET = 1;
const SO_BUSY_POLL = 46;
const SO_INCOMING_NAPI_ID = 56;
const SO_PREFER_BUSY_POLL = 69;
const SO_BUSY_POLL_BUDGET = 70;

/** Any but zero: the calls do not block, so they poll once. */
const BUSY_POLL_US = 20;
/** Frames a poll takes: the kernel's NAPI_POLL_WEIGHT. */
const BUDGET = 64;
/** The port of the datagram; not one that a benchmark uses. */
const PORT = 40_999;
const LEARN_MS = 5000;

export class SelfPolled {
  readonly #fd: number;

  /**
   * Poll the interface that leads to `peerNetwork` (a path), where `address` is ours. Needs root. ARK_TIMEOUT when no
   * datagram comes through.
   */
  constructor(address: Ipv4, peerNetwork: string) {
    this.#fd = openSocket(AF_INET, SOCK_DGRAM, 0, { nonBlocking: true });
    try {
      const name = Buffer.alloc(16);
      name.writeUInt16LE(AF_INET, 0);
      name.writeUInt16BE(PORT, 2);
      bindSocket(this.#fd, name);
      this.#learn(address, peerNetwork);
      setSocketOption(this.#fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, 1, 'SO_PREFER_BUSY_POLL');
      setSocketOption(this.#fd, SOL_SOCKET, SO_BUSY_POLL, BUSY_POLL_US, 'SO_BUSY_POLL');
      setSocketOption(this.#fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, BUDGET, 'SO_BUSY_POLL_BUDGET');
    } catch (error) {
      closeFd(this.#fd);
      throw error;
    }
  }

  #learn(address: Ipv4, peerNetwork: string): void {
    const sender = inNetwork(peerNetwork, () => connectUdp(address, PORT));
    const datagram = Buffer.alloc(64);
    try {
      const end = performance.now() + LEARN_MS;
      while (this.#napiId() === 0) {
        if (performance.now() > end) {
          throw new ArrakisError(
            'ARK_TIMEOUT',
            'no datagram came in by the interface to be polled',
            {
              hint: 'is it up, and GRO on?',
            },
          );
        }
        writeFd(sender, datagram, 1);
      }
    } finally {
      closeFd(sender);
    }
    // The last ones may still wait for a timer of the interface; a socket that has something to read does not poll.
    const quiet = performance.now() + 10;
    while (performance.now() < quiet) readFd(this.#fd, datagram);
  }

  #napiId(): number {
    const value = Buffer.alloc(4);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(4);
    const result = getsockopt(this.#fd, SOL_SOCKET, SO_INCOMING_NAPI_ID, value, length);
    check(result, 'getsockopt', 'SO_INCOMING_NAPI_ID');
    return value.readUInt32LE(0);
  }

  /** Handle up to 64 frames that wait at the interface. */
  readonly poll = (): void => void xskReceive(this.#fd);

  close(): void {
    closeFd(this.#fd);
  }
}

function inNetwork<T>(path: string, body: () => T): T {
  const home = NetworkNamespace.current();
  try {
    enterNetwork(path);
    try {
      return body();
    } finally {
      setNetwork(home.fd, 'home');
    }
  } finally {
    home.close();
  }
}
