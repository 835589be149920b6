/**
 * Shared regions. A region is a sealed memfd of the daemon; a capability for it is turned into a descriptor with exactly
 * its rights by `region.open`.
 *
 * - For readers the memfd is opened anew for reading. It belongs to the daemon's user with mode 0600, so a reader of
 *   another user can neither map it writable nor open it anew by /proc/self/fd. (Root, and the daemon's own user, can.)
 * - A region ends with its first capability, and so with its maker. Memory that is mapped cannot be taken back from a
 *   living process; its owner is told who may still have it (`region.held`).
 */
import fs from 'node:fs';
import { ArrakisError } from '../../base/errors.ts';
import { closeFd } from '../../ffi/fd.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { allRights, RIGHTS } from '../caps/rights.ts';
import type { Capability } from '../caps/space.ts';
import { callerOf, handler } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import { Mailbox } from '../mailbox.ts';
import type { ControlPlane } from '../plane.ts';
import type { ObjectInfo } from '../protocol.ts';
import { findCapability } from './capability.ts';
import type { Domain } from './domain.ts';
import type { ControlObject } from './table.ts';

const PAGE = 4096;
const PREFIX = 'region:';

/** A region as plain JSON, for the daemon that takes it over together with its descriptor. */
export interface SavedRegion {
  readonly id: number;
  readonly createdMs: number;
  readonly name: string;
  readonly bytes: number;
  readonly owner: number;
  readonly cap: number;
  /** Capabilities that it was opened by. */
  readonly openedBy: readonly number[];
}

class SharedRegion implements ControlObject {
  readonly kind = 'region';
  readonly id: number;
  readonly createdMs: number;
  readonly name: string;
  readonly bytes: number;
  readonly fd: number;
  readonly domain: Domain;
  readonly cap: Capability;
  /** Capabilities that it was opened by, other than its owner's. */
  readonly openedBy = new Set<Capability>();
  /** Domains that its owner is still to be told of. */
  readonly held = new Set<number>();

  constructor(
    made: Pick<SharedRegion, 'id' | 'createdMs' | 'name' | 'bytes' | 'fd' | 'domain' | 'cap'>,
  ) {
    this.id = made.id;
    this.createdMs = made.createdMs;
    this.name = made.name;
    this.bytes = made.bytes;
    this.fd = made.fd;
    this.domain = made.domain;
    this.cap = made.cap;
  }

  get owner(): number {
    return this.domain.id;
  }

  save(): SavedRegion {
    const { id, createdMs, name, bytes, owner } = this;
    const openedBy = [...this.openedBy].map((cap) => cap.id);
    return { id, createdMs, name, bytes, owner, cap: this.cap.id, openedBy };
  }

  detail(): ObjectInfo['detail'] {
    return { bytes: this.bytes, shared: true, opened: this.openedBy.size };
  }
}

/** What is wrong with one region more, of the `bytes` that are counted already; null: nothing. */
function tooMuch(
  who: string,
  { count, bytes }: { count: number; bytes: number },
  countMax: number,
  bytesMax: number,
): string | null {
  if (count >= countMax) return `${who} at most ${countMax} regions`;
  return bytes > bytesMax ? `${who} at most ${bytesMax} bytes of regions` : null;
}

export class RegionTable {
  readonly #plane: ControlPlane;
  readonly #regions = new Map<number, SharedRegion>();
  readonly #mail = new WeakMap<Domain, Mailbox>();

  constructor(plane: ControlPlane) {
    this.#plane = plane;
  }

  /** Throws ARK_LIMIT when `domain` may not have `bytes` more. */
  check(domain: Domain, bytes: number): void {
    const own = { count: 0, bytes };
    const user = { count: 0, bytes };
    const all = { count: 0, bytes };
    for (const region of this.#regions.values()) {
      const owners = region.domain === domain ? [own, user, all] : [user, all];
      for (const sum of region.domain.uid === domain.uid ? owners : [all]) {
        sum.count++;
        sum.bytes += region.bytes;
      }
    }
    const text =
      tooMuch('a domain has', own, LIMITS.regionsPerDomainMax, LIMITS.regionBytesPerDomainMax) ??
      (domain.privileged
        ? null
        : tooMuch('a user has', user, LIMITS.regionsPerUidMax, LIMITS.regionBytesPerUidMax)) ??
      tooMuch('all domains together have', all, LIMITS.regionsMax, LIMITS.regionBytesMax);
    if (text === null) return;
    throw new ArrakisError('ARK_LIMIT', text, { hint: 'delete the capability of one first' });
  }

  create(domain: Domain, bytes: number, name: string | undefined): SharedRegion {
    const { objects, caps } = this.#plane;
    const birth = objects.birth();
    const fd = memfdSealed(`arrakis-region-${birth.id}`, bytes, true);
    const cap = caps.mint(domain.id, 'region', `${PREFIX}${birth.id}`, allRights('region'), null);
    const region = { ...birth, name: name ?? `region-${birth.id}`, bytes, fd, domain, cap };
    return this.#keep(this.#add(region));
  }

  /** The region of a capability with the right to read or write it. */
  find(cap: Capability): SharedRegion {
    if (cap.kind !== 'region') {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `capability ${cap.id} is for a ${cap.kind}`, {
        hint: 'region.open takes one of kind region',
      });
    }
    const region = this.#regions.get(Number(cap.object.slice(PREFIX.length)));
    if (region === undefined) throw new ArrakisError('ARK_GONE', `${cap.object} is gone`);
    if ((cap.rights & (RIGHTS.region.read | RIGHTS.region.write)) === 0) {
      throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${cap.id} can only be handed on`, {
        hint: 'ask for one with the right read',
      });
    }
    return region;
  }

  /** A new descriptor for the holder of `cap`; the caller owns it. */
  open(region: SharedRegion, cap: Capability): { fd: number; writable: boolean } {
    const writable = (cap.rights & RIGHTS.region.write) !== 0;
    const fd = fs.openSync(`/proc/self/fd/${region.fd}`, writable ? 'r+' : 'r');
    this.#noteOpen(region, cap);
    return { fd, writable };
  }

  /** Regions with their descriptors, which stay ours. */
  snapshot(): { saved: SavedRegion; fd: number }[] {
    return [...this.#regions.values()].map((region) => ({ saved: region.save(), fd: region.fd }));
  }

  /** Take over `fd` with the region of a snapshot; null, and it is closed, when its domain or capability is gone. */
  restore(saved: SavedRegion, fd: number): SharedRegion | null {
    const domain = this.#plane.domains.get(saved.owner);
    const cap = this.#plane.caps.get(saved.cap);
    if (domain === undefined || cap === undefined) {
      closeFd(fd);
      return null;
    }
    const { id, createdMs, name, bytes } = saved;
    const region = this.#add({ id, createdMs, name, bytes, fd, domain, cap });
    for (const each of saved.openedBy) {
      const opener = this.#plane.caps.get(each);
      if (opener !== undefined) this.#noteOpen(region, opener);
    }
    return this.#keep(region);
  }

  #add(made: ConstructorParameters<typeof SharedRegion>[0]): SharedRegion {
    const region = this.#plane.objects.add(new SharedRegion(made));
    this.#regions.set(region.id, region);
    this.#plane.caps.onRemove(region.cap, () => this.#end(region));
    return region;
  }

  /** Note it for the next daemon. */
  #keep(region: SharedRegion): SharedRegion {
    this.#plane.keeping.put('region', region.id, region.save(), [region.fd]);
    return region;
  }

  #end(region: SharedRegion): void {
    if (!this.#regions.delete(region.id)) return;
    this.#plane.objects.remove(region.id);
    this.#plane.keeping.delete('region', region.id);
    closeFd(region.fd);
  }

  #noteOpen(region: SharedRegion, cap: Capability): void {
    if (cap.holder === region.owner || region.openedBy.has(cap)) return;
    region.openedBy.add(cap);
    this.#keep(region);
    this.#plane.caps.onRemove(cap, () => {
      region.openedBy.delete(cap);
      const holder = this.#plane.domains.get(cap.holder);
      if (holder !== undefined && !holder.closed) this.#tellHeld(region, holder.id);
    });
  }

  #tellHeld(region: SharedRegion, holder: number): void {
    const { domain, id, held } = region;
    held.add(holder);
    const mail = this.#mail.get(domain) ?? new Mailbox(domain);
    this.#mail.set(domain, mail);
    mail.post(`held ${id}`, () => {
      const domains = [...held].slice(0, LIMITS.connectionsMax);
      held.clear();
      domain.event('region.held', { region: id, domains });
    });
  }
}

export const create = handler(
  'region.create',
  (plane, call, { bytes, name }) => {
    const domain = callerOf(call);
    const whole = Math.ceil(bytes / PAGE) * PAGE;
    plane.regions.check(domain, whole);
    return { domain, bytes: whole, name };
  },
  (plane, { domain, bytes, name }) => {
    const { id, cap } = plane.regions.create(domain, bytes, name);
    return { reply: { region: id, cap: cap.id, bytes } };
  },
);

export const open = handler(
  'region.open',
  (plane, call, { cap: id }) => {
    const cap = findCapability(plane, callerOf(call), id);
    return { cap, region: plane.regions.find(cap) };
  },
  (plane, { cap, region }) => {
    const { fd, writable } = plane.regions.open(region, cap);
    const { id, bytes } = region;
    return { reply: { region: id, bytes, writable }, fds: [fd], sent: () => closeFd(fd) };
  },
);
