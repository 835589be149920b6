/** TAP interfaces (tun_tap in the kernel's documentation, linux/if_tun.h): Ethernet frames by read and write. */
import fs from 'node:fs';
import { ArrakisError, SystemError } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import { IFNAMSIZ, IFREQ_BYTES, IFREQ_DATA, ifreq, ioctl } from './ioctl.ts';
import { bind, errnoName } from './libc.ts';

const PATH = '/dev/net/tun';
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNGETIFF = 0x800454d2;
const TUNSETOFFLOAD = 0x400454d0;
/** Checksums, and TCP of both families up to 64 KiB, cross unfinished (linux/if_tun.h, TUN_F_*). */
const TUN_F_CSUM_TSO = 1 | 2 | 4;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const VNET_HEADER_BYTES = 12;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/** TUNSETPERSIST takes its argument by value. */
const ioctlValue = bind<(fd: number, request: number, value: number) => number>('ioctl', 'int', [
  'int',
  'ulong',
  'ulong',
]);

export interface Tap {
  /** Non-blocking, close-on-exec, the caller's. One read or write is one frame. */
  fd: number;
  /** As the kernel named it. */
  name: string;
}

export interface TapOptions {
  /** Wanted name; `tap%d` lets the kernel number it. */
  name: string;
  /** Keep the interface when `fd` is closed. When absent or false, one that is persistent already stays so. */
  persistent?: boolean;
  /** Put a virtio_net_hdr of 12 bytes before every frame, and have the kernel leave checksums and TCP's cutting to us. */
  vnetHeader?: boolean;
}

/**
 * Make or join the TAP interface `name`, in the namespace of the calling thread; it is down. ARK_UNSUPPORTED
 * without /dev/net/tun, ARK_NOT_PERMITTED without CAP_NET_ADMIN, ARK_IN_USE when another process has it.
 */
export function openTap(options: TapOptions): Tap {
  const request = ifreq(options.name);
  const vnetHeader = options.vnetHeader === true ? IFF_VNET_HDR : 0;
  request.writeInt16LE(IFF_TAP | IFF_NO_PI | vnetHeader, IFREQ_DATA);
  const fd = openDevice();
  try {
    if (ioctl(fd, TUNSETIFF, request) < 0) throw refusal(options.name, errnoName());
    if (vnetHeader !== 0) setVnetHeaderBytes(fd, options.name);
    if (options.persistent === true && ioctlValue(fd, TUNSETPERSIST, 1) < 0) {
      throw new SystemError('ioctl', errnoName(), ['TUNSETPERSIST', options.name]);
    }
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const name = request.toString('utf8', 0, IFNAMSIZ).split('\0', 1)[0]!;
  return { fd, name };
}

function setVnetHeaderBytes(fd: number, name: string): void {
  const size = Buffer.alloc(4);
  size.writeInt32LE(VNET_HEADER_BYTES);
  if (ioctl(fd, TUNSETVNETHDRSZ, size) < 0) {
    throw new SystemError('ioctl', errnoName(), ['TUNSETVNETHDRSZ', name]);
  }
  if (ioctlValue(fd, TUNSETOFFLOAD, TUN_F_CSUM_TSO) < 0) {
    throw new SystemError('ioctl', errnoName(), ['TUNSETOFFLOAD', name]);
  }
}

/** Bytes of virtio_net_hdr that stand before a frame of `fd`; 0 also for what is no TAP. */
export function tapVnetHeaderBytes(fd: number): number {
  const request = Buffer.alloc(IFREQ_BYTES);
  if (ioctl(fd, TUNGETIFF, request) < 0) return 0;
  const hasHeader = (request.readUInt16LE(IFREQ_DATA) & IFF_VNET_HDR) !== 0;
  return hasHeader ? VNET_HEADER_BYTES : 0;
}

function openDevice(): number {
  try {
    return fs.openSync(PATH, fs.constants.O_RDWR | O_NONBLOCK | O_CLOEXEC);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EACCES' || code === 'EPERM') {
      throw new ArrakisError('ARK_NOT_PERMITTED', `${PATH} may not be opened`, {
        hint: 'run as root, or give this user access to the device',
        cause: error,
      });
    }
    throw new ArrakisError('ARK_UNSUPPORTED', `${PATH} cannot be opened: ${code}`, {
      hint: 'load the tun module (modprobe tun); in a container, pass the device in',
      cause: error,
    });
  }
}

function refusal(name: string, errno: string): ArrakisError {
  const cause = new SystemError('ioctl', errno, ['TUNSETIFF', name]);
  if (errno === 'EPERM') {
    const hint = 'it needs CAP_NET_ADMIN: run the daemon as root';
    return new ArrakisError('ARK_NOT_PERMITTED', `no right to make TAP "${name}"`, { hint, cause });
  }
  if (errno === 'EBUSY') {
    const hint = 'another process has it open; end that one or choose another name';
    return new ArrakisError('ARK_IN_USE', `TAP "${name}" is in use`, { hint, cause });
  }
  if (errno === 'EINVAL') {
    const hint = 'an interface of that name exists and is not a TAP; choose another name';
    return new ArrakisError('ARK_IN_USE', `"${name}" is taken`, { hint, cause });
  }
  return cause;
}
