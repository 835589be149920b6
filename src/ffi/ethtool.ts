/**
 * Settings of an interface that netlink does not cover here: driver, offloads, channels (ethtool(8),
 * linux/ethtool.h), by ioctl SIOCETHTOOL. Synchronous, in the network namespace of the calling thread.
 */
import { isErrno, SystemError } from '../base/errors.ts';
import { IFREQ_DATA, ifreq, ioctl } from './ioctl.ts';
import { addressOf, errnoName, keepAlive } from './libc.ts';
import { missingLink } from './netlink/index.ts';
import { AF_INET, openSocket, SOCK_DGRAM, withSocket } from './socket.ts';

const SIOCETHTOOL = 0x8946;

const ETHTOOL_GDRVINFO = 0x03;
const ETHTOOL_GTXCSUM = 0x16;
const ETHTOOL_STXCSUM = 0x17;
const ETHTOOL_GTSO = 0x1e;
const ETHTOOL_STSO = 0x1f;
const ETHTOOL_GGSO = 0x23;
const ETHTOOL_SGSO = 0x24;
const ETHTOOL_GGRO = 0x2b;
const ETHTOOL_SGRO = 0x2c;
const ETHTOOL_GFLAGS = 0x25;
const ETHTOOL_SFLAGS = 0x26;
const ETHTOOL_GCHANNELS = 0x3c;
const ETHTOOL_GSET = 0x01;

/** struct ethtool_drvinfo: cmd 0, driver 4, then four more strings of 32 and counts. */
const DRVINFO_BYTES = 196;
const DRVINFO_DRIVER = 4;
const DRVINFO_DRIVER_BYTES = 32;
/** struct ethtool_cmd: cmd 0, speed in Mbit/s: its lower half at 12, its upper at 28. */
const SETTINGS_BYTES = 44;
const SETTINGS_SPEED = 12;
const SETTINGS_SPEED_HIGH = 28;
const SPEED_UNKNOWN = 0xffff_ffff;
const BITS_PER_MBIT = 1_000_000;
/** struct ethtool_value: cmd 0, data 4. */
const VALUE_BYTES = 8;
/** struct ethtool_channels: cmd, then max rx, tx, other, combined, then the same four as set. */
const CHANNELS_BYTES = 36;

/** enum ethtool_flags: ETH_FLAG_TXVLAN, ETH_FLAG_RXVLAN. */
const VLAN_FLAG = { transmit: 1 << 7, receive: 1 << 8 } as const;
/** Which side of an interface puts VLAN tags on, or takes them off. */
export type VlanOffload = keyof typeof VLAN_FLAG;

/** Queues by purpose. A combined channel is one receive and one transmit queue. */
export interface Channels {
  rxMax: number;
  txMax: number;
  combinedMax: number;
  rx: number;
  tx: number;
  combined: number;
}

export interface Offloads {
  /** The device finishes checksums: what a veth's peer then sees is unfinished. */
  txChecksum: boolean;
  gro: boolean;
  gso: boolean;
  tso: boolean;
}

/** Run one ethtool command; the kernel writes its answer into `data`. ENODEV is ARK_NOT_FOUND. */
function ethtool(name: string, command: number, data: Buffer, what: string): void {
  const request = ifreq(name);
  data.writeUInt32LE(command, 0);
  request.writeBigUInt64LE(BigInt(addressOf(data)), IFREQ_DATA);
  withSocket(openSocket(AF_INET, SOCK_DGRAM, 0), (fd) => {
    const result = ioctl(fd, SIOCETHTOOL, request);
    keepAlive(data);
    if (result >= 0) return;
    const errno = errnoName();
    if (errno === 'ENODEV') throw missingLink(name);
    throw new SystemError('ioctl', errno, [what, name]);
  });
}

function getValue(name: string, command: number, what: string): boolean {
  const data = Buffer.alloc(VALUE_BYTES);
  ethtool(name, command, data, what);
  return data.readUInt32LE(4) !== 0;
}

function setValue(name: string, command: number, on: boolean, what: string): void {
  const data = Buffer.alloc(VALUE_BYTES);
  data.writeUInt32LE(on ? 1 : 0, 4);
  ethtool(name, command, data, what);
}

/** Name of the kernel driver behind the interface: 'veth', 'tun', 'ixgbe', ... */
export function driverName(name: string): string {
  const data = Buffer.alloc(DRVINFO_BYTES);
  ethtool(name, ETHTOOL_GDRVINFO, data, 'ETHTOOL_GDRVINFO');
  const text = data.toString('utf8', DRVINFO_DRIVER, DRVINFO_DRIVER + DRVINFO_DRIVER_BYTES);
  return text.split('\0', 1)[0]!;
}

/** Speed of the link in bits a second; null when the interface has none, or does not know it. */
export function linkBitsPerSecond(name: string): number | null {
  const data = Buffer.alloc(SETTINGS_BYTES);
  try {
    ethtool(name, ETHTOOL_GSET, data, 'ETHTOOL_GSET');
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP', 'EINVAL')) return null;
    throw error;
  }
  const high = data.readUInt16LE(SETTINGS_SPEED_HIGH) * 0x10000;
  const mbits = high + data.readUInt16LE(SETTINGS_SPEED);
  return mbits === 0 || mbits === SPEED_UNKNOWN ? null : mbits * BITS_PER_MBIT;
}

/** Whether the kernel leaves checksums to the interface. */
export function getTxChecksum(name: string): boolean {
  return getValue(name, ETHTOOL_GTXCSUM, 'ETHTOOL_GTXCSUM');
}

/** What the interface is asked to do for the kernel's stack. */
export function getOffloads(name: string): Offloads {
  return {
    txChecksum: getTxChecksum(name),
    gro: getValue(name, ETHTOOL_GGRO, 'ETHTOOL_GGRO'),
    gso: getValue(name, ETHTOOL_GGSO, 'ETHTOOL_GGSO'),
    tso: getValue(name, ETHTOOL_GTSO, 'ETHTOOL_GTSO'),
  };
}

/** Off: the kernel finishes checksums before it hands frames to the interface. */
export function setTxChecksum(name: string, on: boolean): void {
  setValue(name, ETHTOOL_STXCSUM, on, 'ETHTOOL_STXCSUM');
}

/** On: a veth takes frames by NAPI, which redirecting to it requires. */
export function setGro(name: string, on: boolean): void {
  setValue(name, ETHTOOL_SGRO, on, 'ETHTOOL_SGRO');
}

/** Off: the kernel's stack makes no packets larger than the MTU. Takes TSO off with it. */
export function setGso(name: string, on: boolean): void {
  setValue(name, ETHTOOL_SGSO, on, 'ETHTOOL_SGSO');
}

/** Off: the kernel cuts TCP segments itself, after the last queue of its own, before the interface. */
export function setTso(name: string, on: boolean): void {
  setValue(name, ETHTOOL_STSO, on, 'ETHTOOL_STSO');
}

function getFlags(name: string): number {
  const data = Buffer.alloc(VALUE_BYTES);
  ethtool(name, ETHTOOL_GFLAGS, data, 'ETHTOOL_GFLAGS');
  return data.readUInt32LE(4);
}

/** Whether the interface keeps VLAN tags beside the frame on that side. */
export const getVlanOffload = (name: string, side: VlanOffload): boolean =>
  (getFlags(name) & VLAN_FLAG[side]) !== 0;

/** Off: tags are in the frames. SystemError EINVAL where the driver has it fixed. */
export function setVlanOffload(name: string, side: VlanOffload, on: boolean): void {
  const flags = getFlags(name);
  const data = Buffer.alloc(VALUE_BYTES);
  data.writeUInt32LE(on ? flags | VLAN_FLAG[side] : flags & ~VLAN_FLAG[side], 4);
  ethtool(name, ETHTOOL_SFLAGS, data, 'ETHTOOL_SFLAGS');
}

/** Queues of the interface; a driver without channels is a SystemError EOPNOTSUPP. */
export function getChannels(name: string): Channels {
  const data = Buffer.alloc(CHANNELS_BYTES);
  ethtool(name, ETHTOOL_GCHANNELS, data, 'ETHTOOL_GCHANNELS');
  return {
    rxMax: data.readUInt32LE(4),
    txMax: data.readUInt32LE(8),
    combinedMax: data.readUInt32LE(16),
    rx: data.readUInt32LE(20),
    tx: data.readUInt32LE(24),
    combined: data.readUInt32LE(32),
  };
}
