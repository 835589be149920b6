/** ioctl(2) and the `struct ifreq` that most network ioctls take (netdevice(7)). */
import { ArrakisError } from '../base/errors.ts';
import { bind } from './libc.ts';

/** `ioctl(fd, request, argument)`; -1 and errno on failure. Unchecked. */
export const ioctl = bind<(fd: number, request: number, argument: Uint8Array) => number>(
  'ioctl',
  'int',
  ['int', 'ulong', 'void *'],
);

export const IFNAMSIZ = 16;
export const IFREQ_BYTES = 40;

/** Offset of the union behind the name in `struct ifreq`. */
export const IFREQ_DATA = IFNAMSIZ;

/** `name` when Linux would take it for an interface (dev_valid_name); otherwise throws. */
export function checkInterfaceName(name: string): string {
  const length = Buffer.byteLength(name);
  const bad = name === '.' || name === '..' || /[\s/:\0]/.test(name);
  if (length === 0 || length >= IFNAMSIZ || bad) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${name}" is not an interface name`, {
      hint: `use 1 to ${IFNAMSIZ - 1} bytes without spaces, "/" and ":"`,
    });
  }
  return name;
}

/** A zeroed `struct ifreq` for the interface `name`. */
export function ifreq(name: string): Buffer {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(checkInterfaceName(name), 0);
  return request;
}
