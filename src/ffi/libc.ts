/**
 * The door to native code. `bind` declares a libc function once; `check` turns its -1 into a SystemError that
 * names the call, its arguments and the errno. Everything under ffi/ is built from these two.
 */
import os from 'node:os';
import koffi from 'koffi';
import { ArrakisError, SystemError } from '../base/errors.ts';

if (process.platform !== 'linux' || process.arch !== 'x64') {
  throw new ArrakisError(
    'ARK_UNSUPPORTED',
    `arrakis runs on Linux x86-64; this is ${process.platform} ${process.arch}`,
    { hint: 'structure layouts in src/ffi are those of x86-64 Linux; run it there or in a VM' },
  );
}

const libc = koffi.load('libc.so.6');

/** Declare `name(...types): result` of libc. Pointers that we hold as numbers are `uintptr_t`. */
// biome-ignore lint/suspicious/noExplicitAny: a native function has the types of its declaration
export function bind<F extends (...args: any[]) => any>(
  name: string,
  result: string,
  types: string[],
): F {
  return libc.func(name, result, types) as unknown as F;
}

const errnoNames = new Map<number, string>(
  Object.entries(os.constants.errno).map(([name, value]) => [value, name]),
);
// Not in Node's table.
// EWOULDBLOCK and ENOTSUP share their numbers with the names that everybody uses.
errnoNames.set(11, 'EAGAIN').set(95, 'EOPNOTSUPP').set(524, 'ENOTSUPP').set(126, 'ENOKEY');

/** errno of the last native call on this thread, by name. */
export function errnoName(): string {
  return errnoToName(koffi.errno());
}

/** Name of an errno value; netlink reports errors as numbers. */
export function errnoToName(errno: number): string {
  return errnoNames.get(errno) ?? `errno ${errno}`;
}

/** errno of the last native call on this thread, as the number the kernel uses. */
export const errno = (): number => koffi.errno();

/** `result` when it is not negative; otherwise throws the SystemError of `call(args)`. */
export function check(result: number, call: string, ...args: unknown[]): number {
  if (result < 0) throw new SystemError(call, errnoName(), args);
  return result;
}

/**
 * Machine address of a Buffer's bytes, which from now on stay where they are for as long as the Buffer lives. An address
 * does not keep it alive: where one goes into a structure that native code reads, call `keepAlive` after the call.
 */
export function addressOf(buffer: Uint8Array): number {
  return Number(koffi.address(buffer));
}

let kept: unknown;

/** A use, after a native call, of what the call read through addresses: until here it cannot be collected. */
export function keepAlive(...values: unknown[]): void {
  kept = values;
  kept = undefined;
}
void kept;

/** The memory at `address` as an ArrayBuffer: no copy, no ownership. */
export function viewOf(address: number, length: number): ArrayBuffer {
  return koffi.view(address as unknown as bigint, length);
}

export const EAGAIN = 11;
export const EPERM = 1;
export const EINTR = 4;
export const ENOBUFS = 105;
export const EBUSY = 16;
export const ENOSYS = 38;
