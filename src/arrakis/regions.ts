/**
 * Shared regions from an application's side: memory with a capability. Who is granted `read` gets a descriptor that
 * cannot be made writable; a store into such a mapping ends the process by SIGSEGV, as for any read-only page.
 */
import type { CapInfo, ReplyOf } from '../control/protocol.ts';
import { closeAll } from '../ffi/fd.ts';
import { type Mapping, mapShared } from '../ffi/memory.ts';
import type { Request } from './endpoints.ts';

export type RegionRight = 'read' | 'write';

export class Region {
  readonly id: number;
  readonly cap: number;
  readonly writable: boolean;
  /** The memory itself: other domains see every store, and their stores show here at any time. */
  readonly buffer: ArrayBuffer;
  readonly #mapping: Mapping;
  readonly #request: Request;

  private constructor(
    cap: number,
    info: ReplyOf<'region.open'>,
    mapping: Mapping,
    request: Request,
  ) {
    this.id = info.region;
    this.cap = cap;
    this.writable = info.writable;
    this.buffer = mapping.buffer;
    this.#mapping = mapping;
    this.#request = request;
  }

  /** Open and map what capability `cap` is for, with its rights. */
  static async open(cap: number, request: Request): Promise<Region> {
    const { reply, fds } = await request('region.open', { cap });
    try {
      const { bytes, writable } = reply;
      return new Region(cap, reply, mapShared(fds[0]!, bytes, 0, false, !writable), request);
    } finally {
      closeAll(fds);
    }
  }

  /** Let domain `to` read it, or read and write it. The capability of the answer takes that back (`domain.revoke`). */
  async grant(to: number, right: RegionRight): Promise<CapInfo> {
    const rights = right === 'write' ? ['read', 'write'] : ['read'];
    return (await this.#request('cap.grant', { cap: this.cap, to, rights })).reply;
  }

  /** Let everybody find it under `path` who may look there. */
  async bind(path: string, right: RegionRight): Promise<void> {
    const rights = right === 'write' ? ['read', 'write'] : ['read'];
    await this.#request('name.bind', { path, cap: this.cap, rights });
  }

  /** Unmap it here. Views of `buffer` read zeros from now on. The region stays while its capability does. Idempotent. */
  close(): void {
    this.#mapping.release();
  }
}
