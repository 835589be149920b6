/**
 * Shared memory: sealed memfds and their mappings.
 *
 * - A memfd that crosses a wall is sealed against shrinking: a peer that could truncate it could kill us by SIGBUS.
 * - JavaScript may still hold views of a mapping after it was released, so `release` does not leave a hole behind:
 *   it puts empty private pages in its place, and stale views read zeros.
 */
import fs from 'node:fs';
import { ArrakisError, SystemError } from '../base/errors.ts';
import { closeFd, fcntl } from './fd.ts';
import { bind, check, errnoName, viewOf } from './libc.ts';

const mmap = bind<
  (addr: number, length: number, prot: number, flags: number, fd: number, offset: number) => number
>('mmap', 'intptr_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'long']);
const munmap = bind<(addr: number, length: number) => number>('munmap', 'int', [
  'uintptr_t',
  'size_t',
]);
const mremap = bind<
  (old: number, oldLength: number, length: number, flags: number, address: number) => number
>('mremap', 'intptr_t', ['uintptr_t', 'size_t', 'size_t', 'int', 'uintptr_t']);
const memfdCreateCall = bind<(name: string, flags: number) => number>('memfd_create', 'int', [
  'str',
  'uint',
]);
const ftruncate = bind<(fd: number, length: number) => number>('ftruncate', 'int', ['int', 'long']);

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_POPULATE = 0x8000;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

/** A mapping of this process. `address` is its machine address; `buffer` the same bytes for JavaScript. */
export class Mapping {
  readonly buffer: ArrayBuffer;
  readonly address: number;
  readonly length: number;
  #released = false;

  constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
    this.buffer = viewOf(address, length);
  }

  /** Give the memory back. Idempotent. Views of `buffer` stay harmless: they read zeros from now on. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    mapZeroAt(this.address, this.length);
  }
}

/**
 * Map `length` bytes of `fd` from `offset`, shared, readable and writable. `fd` may be closed afterwards. `readOnly`: a
 * store into it ends the process by SIGSEGV.
 */
export function mapShared(
  fd: number,
  length: number,
  offset = 0,
  populate = false,
  readOnly = false,
): Mapping {
  const flags = MAP_SHARED | (populate ? MAP_POPULATE : 0);
  const address = check(
    mmap(0, length, readOnly ? PROT_READ : PROT_READ | PROT_WRITE, flags, fd, offset),
    'mmap',
    `fd ${fd}`,
    length,
    `offset ${offset}`,
  );
  return new Mapping(address, length);
}

/** Run `use` with the address of `length` bytes of `fd` from `offset`, mapped for as long as that takes. */
export function withMapped(
  fd: number,
  length: number,
  offset: number,
  use: (address: number) => void,
): void {
  const address = check(
    mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset),
    'mmap',
    `fd ${fd}`,
    length,
    `offset ${offset}`,
  );
  try {
    use(address);
  } finally {
    munmap(address, length);
  }
}

/** An address range of `length` bytes that holds empty private pages and costs nothing until it is used. */
export function reserve(length: number): number {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return check(mmap(0, length, PROT_READ | PROT_WRITE, flags, -1, 0), 'mmap', 'reserve', length);
}

/**
 * Map `length` bytes of `fd` from `offset`, shared, over whatever was at `address`. When that fails, what was there is
 * still there: MAP_FIXED would first take it away and then ask the file, and the next allocation of anybody in this
 * process would fall into the hole. So the file is mapped elsewhere, and moved once it is.
 */
export function mapSharedAt(address: number, fd: number, length: number, offset: number): void {
  const made = check(
    mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset),
    'mmap',
    `fd ${fd}`,
    length,
    `offset ${offset}`,
  );
  const flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  const moved = mremap(made, length, length, flags, address);
  if (moved >= 0) return;
  const error = new SystemError('mremap', errnoName(), [length, 'MREMAP_FIXED']);
  // The kernel may have made room before it found out.
  mapZeroAt(address, length);
  munmap(made, length);
  throw error;
}

/** Put empty private pages over whatever was at `address`. */
export function mapZeroAt(address: number, length: number): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  check(mmap(address, length, PROT_READ | PROT_WRITE, flags, -1, 0), 'mmap', 'MAP_FIXED', length);
}

/**
 * A new zeroed memfd of `length` bytes, sealed against shrinking and growing. The caller owns the descriptor. `final`:
 * no holder can add seals of its own (F_SEAL_FUTURE_WRITE would keep the others from mapping it), and no other user
 * can open it anew by /proc/self/fd with more rights than its descriptor has.
 */
export function memfdSealed(name: string, length: number, final = false): number {
  const fd = check(memfdCreateCall(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', name);
  try {
    check(ftruncate(fd, length), 'ftruncate', fd, length);
    const seals = F_SEAL_SHRINK | F_SEAL_GROW | (final ? F_SEAL_SEAL : 0);
    check(fcntl(fd, F_ADD_SEALS, seals), 'fcntl', fd, 'F_ADD_SEALS');
    if (final) fs.fchmodSync(fd, 0o600);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** A memfd of one huge page, sealed against shrinking; -1 where the kernel makes none. For tests. */
export function memfdHuge(): number {
  const fd = memfdCreateCall('huge', MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
  if (fd < 0) return -1;
  check(ftruncate(fd, 2 * 1024 * 1024), 'ftruncate', fd);
  check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 'fcntl', fd, 'F_ADD_SEALS');
  return fd;
}

/** Throws unless the owner of `fd` can no longer shrink it under us. */
export function requireSealed(fd: number): void {
  // -1 when `fd` is not memory that can have seals.
  const seals = fcntl(fd, F_GET_SEALS, 0);
  if (seals < 0 || (seals & F_SEAL_SHRINK) === 0) {
    throw new ArrakisError(
      'ARK_NOT_PERMITTED',
      `descriptor ${fd} is not memory sealed by F_SEAL_SHRINK`,
      {
        hint: 'share a memfd with F_SEAL_SHRINK, or have the port created for unsealed memory',
      },
    );
  }
}
