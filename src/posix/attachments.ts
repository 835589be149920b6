/** The interfaces that this thread's sockets are on, and which of them a socket belongs to. Nearly always there is one. */
import cluster from 'node:cluster';
import type { Host } from './host.ts';
import type { LocalTcp } from './local-tcp.ts';
import type { Way } from './routes.ts';
import type { ByteSource } from './tcp-stream.ts';

/** One interface, as its TCP handles need it. */
export interface Part {
  readonly host: Host;
  readonly source: ByteSource;
  /** Connections of this program to itself. */
  readonly local: LocalTcp;
}

export interface Path {
  readonly part: Part;
  readonly way: Exclude<Way, 'kernel'>;
}

/** In the order in which they were attached. */
export const parts: Part[] = [];

/** Those on which a socket bound to `address` listens; none: it is the kernel's. `any` is the unspecified address. */
export function partsAt(address: string): readonly Part[] {
  for (const part of parts) {
    const place = part.host.routes.placeOf(address);
    if (place === 'any') return parts;
    if (place === 'vnic') return [part];
  }
  return [];
}

let wasWarned = false;

/**
 * Whether a socket that is bound now is for the workers of a cluster: they are given descriptors, which ours have not, so
 * it is the kernel's. Says so, once.
 */
export function isForWorkers(): boolean {
  if (!cluster.isPrimary || Object.keys(cluster.workers ?? {}).length === 0) return false;
  if (!wasWarned) {
    wasWarned = true;
    process.emitWarning('the sockets of a cluster are the kernel’s, not the VNIC’s');
  }
  return true;
}

export const isAny = (address: string): boolean => parts[0]?.host.routes.placeOf(address) === 'any';

/**
 * The way of a connection to port `port` of `address`; null: by the kernel. A loopback address is only ours when this
 * program listens there. An interface's own address comes first, then its subnet, then a gateway.
 */
export function pathTo(address: string, port: number): Path | null {
  let best: Path | null = null;
  for (const part of parts) {
    const way = part.host.routes.toward(address);
    if (way === 'kernel' || (way === 'loopback' && !part.local.listensOn(port))) continue;
    if (way !== 'vnic') return { part, way };
    if (best === null || part.host.routes.isOnLink(address)) best = { part, way };
  }
  return best;
}

/** The way of a connection that is bound to the interface of `part`. */
export function pathFrom(part: Part, address: string, port: number): Path {
  const way = part.host.routes.toward(address);
  if (way === 'self' || (way === 'loopback' && part.local.listensOn(port))) return { part, way };
  return { part, way: 'vnic' };
}
