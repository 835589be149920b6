/**
 * bpf(2): maps, XDP programs and their links.
 *
 * - Every object is a descriptor that the caller owns; nothing is pinned, so all of it goes with the process.
 * - Integers in map keys and values have the byte order that the program reads: the caller lays them out.
 */
import fs from 'node:fs';
import { ArrakisError, SystemError } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import { addressOf, bind, check, errnoName, keepAlive } from './libc.ts';

const syscall = bind<(number: number, command: number, attr: Uint8Array, size: number) => number>(
  'syscall',
  'long',
  ['long', 'int', 'void *', 'uint'],
);

const SYS_BPF = 321;
const ATTR_SIZE = 128;
const MAP_CREATE = 0;
const MAP_LOOKUP_ELEM = 1;
const MAP_UPDATE_ELEM = 2;
const MAP_DELETE_ELEM = 3;
const MAP_GET_NEXT_KEY = 4;
const PROG_LOAD = 5;
const PROG_TEST_RUN = 10;
const PROG_GET_FD_BY_ID = 13;
const OBJ_GET_INFO_BY_FD = 15;
const LINK_CREATE = 28;
const LINK_DETACH = 34;
const LINK_UPDATE = 29;

const BPF_NOEXIST = 1;
const PROG_TYPE_XDP = 6;
const ATTACH_TYPE_XDP = 37;
const NAME_BYTES_MAX = 15;
const LOG_BYTES_FIRST = 64 * 1024;
const LOG_BYTES_MAX = 16 * 1024 * 1024;
const PROG_INFO_BYTES = 232;
const PROG_INFO_NAME = 64;

/** Numbers of enum bpf_map_type. */
const MAP_TYPE = { hash: 1, array: 2, percpuArray: 6, devmap: 14, xskmap: 17 } as const;

export interface MapSpec {
  readonly type: keyof typeof MAP_TYPE;
  readonly name: string;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entriesMax: number;
}

/** XDP in the driver before the kernel makes a socket buffer, or after it. Values are the XDP_FLAGS_* bits. */
export const XDP_MODE_FLAGS = { native: 4, skb: 2 } as const;
export type XdpMode = keyof typeof XDP_MODE_FLAGS;

/** The verifier rejected a program. `log` is what it said, and stands in the message too. */
export class VerifierError extends ArrakisError {
  override readonly name = 'VerifierError';
  readonly log: string;

  constructor(program: string, errno: string, log: string) {
    super('ARK_VERIFIER', `the kernel rejected XDP program ${program}: ${errno}\n${log}`);
    this.log = log;
  }
}

/** `operands` are the buffers whose addresses stand in `attr`. */
function bpf(command: number, attr: Buffer, ...operands: unknown[]): number {
  const result = syscall(SYS_BPF, command, attr, attr.length);
  keepAlive(...operands);
  return result;
}

function writePointer(attr: Buffer, at: number, target: Uint8Array): void {
  attr.writeBigUInt64LE(BigInt(addressOf(target)), at);
}

function writeName(attr: Buffer, at: number, name: string): void {
  attr.write(name.slice(0, NAME_BYTES_MAX), at, 'latin1');
}

/** A new map. The caller owns the descriptor. */
export function createMap(spec: MapSpec): number {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(MAP_TYPE[spec.type], 0);
  attr.writeUInt32LE(spec.keyBytes, 4);
  attr.writeUInt32LE(spec.valueBytes, 8);
  attr.writeUInt32LE(spec.entriesMax, 12);
  writeName(attr, 28, spec.name);
  const fd = bpf(MAP_CREATE, attr);
  if (fd < 0) {
    const name = errnoName();
    const hint = name === 'EPERM' ? 'run it as root, or with CAP_BPF and CAP_NET_ADMIN' : undefined;
    throw new SystemError('bpf', name, ['MAP_CREATE', spec.type, spec.name], hint);
  }
  return fd;
}

function element(command: number, fd: number, key: Buffer, value: Buffer | null, flags: number) {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(fd, 0);
  writePointer(attr, 8, key);
  if (value !== null) writePointer(attr, 16, value);
  attr.writeUInt32LE(flags, 24);
  return bpf(command, attr, key, value);
}

/** Set `key` to `value`; with `create`, only when it is not there yet (EEXIST otherwise). */
export function mapUpdate(fd: number, key: Buffer, value: Buffer, create = false): void {
  const result = element(MAP_UPDATE_ELEM, fd, key, value, create ? BPF_NOEXIST : 0);
  check(result, 'bpf', 'MAP_UPDATE_ELEM', fd, key.toString('hex'));
}

/** Read the value of `key` into `value`. False when there is none. */
export function mapLookup(fd: number, key: Buffer, value: Buffer): boolean {
  return absent(element(MAP_LOOKUP_ELEM, fd, key, value, 0), 'MAP_LOOKUP_ELEM', fd, key);
}

/** Remove `key`. False when it was not there. */
export function mapDelete(fd: number, key: Buffer): boolean {
  return absent(element(MAP_DELETE_ELEM, fd, key, null, 0), 'MAP_DELETE_ELEM', fd, key);
}

function absent(result: number, command: string, fd: number, key: Buffer): boolean {
  if (result >= 0) return true;
  if (errnoName() === 'ENOENT') return false;
  check(result, 'bpf', command, fd, key.toString('hex'));
  return false;
}

/** Every key of a hash map that nobody else changes meanwhile. */
export function mapKeys(fd: number, keyBytes: number): Buffer[] {
  const keys: Buffer[] = [];
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(fd, 0);
  for (;;) {
    const next = Buffer.alloc(keyBytes);
    const last = keys.at(-1);
    if (last !== undefined) writePointer(attr, 8, last);
    writePointer(attr, 16, next);
    const result = bpf(MAP_GET_NEXT_KEY, attr, last, next);
    if (!absent(result, 'MAP_GET_NEXT_KEY', fd, last ?? next)) return keys;
    keys.push(next);
  }
}

/** A map index or uint32 as a key or value in the machine's byte order. */
export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

let possible = 0;

/** CPUs that this kernel could ever have; per-CPU values have that many parts. */
export function possibleCpus(): number {
  if (possible > 0) return possible;
  const ranges = fs.readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim().split(',');
  for (const range of ranges) {
    const [first, last = first] = range.split('-').map(Number);
    possible = Math.max(possible, last! + 1);
  }
  return possible;
}

/** Entries `first` to `first + count - 1` of a per-CPU array of `words` uint64 each, summed over the CPUs. */
export function percpuSums(fd: number, first: number, count: number, words: number): number[][] {
  const cpus = possibleCpus();
  const value = Buffer.alloc(cpus * words * 8);
  const sums: number[][] = [];
  for (let index = first; index < first + count; index++) {
    const sum = new Array<number>(words).fill(0);
    if (!mapLookup(fd, u32(index), value)) continue;
    for (let i = 0; i < cpus * words; i++) {
      sum[i % words]! += Number(value.readBigUInt64LE(i * 8));
    }
    sums.push(sum);
  }
  return sums;
}

/** Set one entry of a per-CPU array of `words` uint64 to zero on every CPU. */
export function percpuClear(fd: number, index: number, words: number): void {
  mapUpdate(fd, u32(index), Buffer.alloc(possibleCpus() * words * 8));
}

/**
 * Load an XDP program of 8-byte instructions. The caller owns the descriptor. A rejected one throws a
 * VerifierError with the verifier's log: the program is loaded again with a log, a larger one each time it is cut.
 */
export function loadXdpProgram(name: string, instructions: Uint8Array): number {
  const code = Buffer.from(instructions);
  const license = Buffer.from('Dual MIT/GPL\0');
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(PROG_TYPE_XDP, 0);
  attr.writeUInt32LE(code.length / 8, 4);
  writePointer(attr, 8, code);
  writePointer(attr, 16, license);
  writeName(attr, 48, name);
  attr.writeUInt32LE(ATTACH_TYPE_XDP, 68);
  const fd = bpf(PROG_LOAD, attr, code, license);
  if (fd >= 0) return fd;
  const reason = errnoName();
  if (reason === 'EPERM') {
    const hint = 'run it as root, or with CAP_BPF and CAP_NET_ADMIN';
    throw new SystemError('bpf', reason, ['PROG_LOAD', name], hint);
  }
  return explain(name, attr, reason, [code, license]);
}

function explain(name: string, attr: Buffer, reason: string, operands: readonly Buffer[]): number {
  for (let size = LOG_BYTES_FIRST; ; size *= 8) {
    const log = Buffer.alloc(size);
    attr.writeUInt32LE(1, 24);
    attr.writeUInt32LE(size, 28);
    writePointer(attr, 32, log);
    const fd = bpf(PROG_LOAD, attr, log, ...operands);
    if (fd >= 0) return fd;
    if (errnoName() === 'ENOSPC' && size < LOG_BYTES_MAX) continue;
    const end = log.indexOf(0);
    throw new VerifierError(name, reason, log.toString('utf8', 0, end < 0 ? size : end));
  }
}

/** What `program` returns for `frame`, which no interface sees. Redirects only say XDP_REDIRECT. For tests. */
export function runXdpProgram(program: number, frame: Uint8Array): number {
  const attr = Buffer.alloc(ATTR_SIZE);
  const input = Buffer.from(frame);
  attr.writeUInt32LE(program, 0);
  attr.writeUInt32LE(input.length, 8);
  writePointer(attr, 16, input);
  attr.writeUInt32LE(1, 32);
  check(bpf(PROG_TEST_RUN, attr, input), 'bpf', 'PROG_TEST_RUN', `${input.length} bytes`);
  return attr.readUInt32LE(4);
}

/** Attach a program to an interface in one mode. The link's descriptor is the caller's; closing it detaches. */
export function attachXdp(program: number, ifIndex: number, mode: XdpMode): number {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(program, 0);
  attr.writeUInt32LE(ifIndex, 4);
  attr.writeUInt32LE(ATTACH_TYPE_XDP, 8);
  attr.writeUInt32LE(XDP_MODE_FLAGS[mode], 12);
  return check(bpf(LINK_CREATE, attr), 'bpf', 'LINK_CREATE', `interface ${ifIndex}`, mode);
}

/** Put another program in the place of a link's. Every packet meets the old one or the new one, never none. */
export function updateLink(link: number, program: number): void {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(link, 0);
  attr.writeUInt32LE(program, 4);
  check(bpf(LINK_UPDATE, attr), 'bpf', 'LINK_UPDATE', link);
}

/** Detach the program of a link, for every copy of the descriptor. The interface may have gone already. */
export function detachLink(link: number): void {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(link, 0);
  const result = bpf(LINK_DETACH, attr);
  if (result < 0 && errnoName() === 'ENOLINK') return;
  check(result, 'bpf', 'LINK_DETACH', link);
}

/** Name of a loaded program, '' when it has none or is gone. */
export function programName(id: number): string {
  const attr = Buffer.alloc(ATTR_SIZE);
  attr.writeUInt32LE(id, 0);
  const fd = bpf(PROG_GET_FD_BY_ID, attr);
  if (fd < 0) return '';
  const info = Buffer.alloc(PROG_INFO_BYTES);
  const query = Buffer.alloc(ATTR_SIZE);
  query.writeUInt32LE(fd, 0);
  query.writeUInt32LE(info.length, 4);
  writePointer(query, 8, info);
  const result = bpf(OBJ_GET_INFO_BY_FD, query, info);
  closeFd(fd);
  if (result < 0) return '';
  const text = info.toString('latin1', PROG_INFO_NAME, PROG_INFO_NAME + NAME_BYTES_MAX + 1);
  return text.slice(0, text.indexOf('\0'));
}
