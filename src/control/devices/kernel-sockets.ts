/**
 * Ports of an address that the kernel has, too. A port that a VNIC receives is occupied by a kernel socket of the daemon,
 * which is bound and never read: a kernel program that wants it gets EADDRINUSE, the kernel chooses it for nobody, and
 * `ss` shows who has it. A port that a kernel socket has already is refused to the VNIC.
 *
 * (The other way, ip_local_reserved_ports, keeps a port only from being chosen: who asks for it by number still gets it.)
 */
import fs from 'node:fs';
import { formatIpv4, type Ipv4 } from '../../base/address.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { closeAll } from '../../ffi/fd.ts';
import { occupyPort } from '../../ffi/inet.ts';
import { DIM, type Filter, PROTOCOL, SPACE_LAST } from '../../filter/boxes.ts';

export interface Port {
  readonly protocol: 'udp' | 'tcp';
  readonly port: number;
}

const PROTOCOLS = [
  ['udp', PROTOCOL.udp],
  ['tcp', PROTOCOL.tcp],
] as const;
/** Column of the inode in /proc/net/udp and tcp, and the state of a connection that is over (TIME-WAIT). */
const COLUMN = { local: 1, state: 3, uid: 7, inode: 9 } as const;
const TIME_WAIT = '06';

/**
 * The ports of `address` that `filters` take whole, from anybody; null when they are more than `max`. Parts of a port (from
 * one sender) are not among them: the rest is the kernel's.
 */
export function portsOf(filters: readonly Filter[], address: Ipv4, max: number): Port[] | null {
  const ports = new Map<string, Port>();
  for (const { first, last } of filters.flatMap((filter) => filter.boxes)) {
    const isWhole = [DIM.source, DIM.sourcePort].every(
      (d) => first[d] === 0 && last[d] === SPACE_LAST[d],
    );
    if (!isWhole || address < first[DIM.destination]! || address > last[DIM.destination]!) continue;
    if (last[DIM.ports] !== 1) continue;
    for (const [protocol, number] of PROTOCOLS) {
      if (number < first[DIM.protocol]! || number > last[DIM.protocol]!) continue;
      const from = Math.max(1, first[DIM.destinationPort]!);
      for (let port = from; port <= last[DIM.destinationPort]!; port++) {
        ports.set(`${protocol} ${port}`, { protocol, port });
        if (ports.size > max) return null;
      }
    }
  }
  return [...ports.values()];
}

/** Occupy all of `ports`: their descriptors, which are the caller's. ARK_IN_USE with the holder; then none is occupied. */
export function occupyPorts(address: Ipv4, ports: readonly Port[]): number[] {
  const fds: number[] = [];
  try {
    for (const port of ports) fds.push(occupyOne(address, port));
    return fds;
  } catch (error) {
    closeAll(fds);
    throw error;
  }
}

function occupyOne(address: Ipv4, { protocol, port }: Port): number {
  try {
    return occupyPort(protocol, address, port);
  } catch (error) {
    if (!isErrno(error, 'EADDRINUSE')) throw error;
    const holders = socketsAt(protocol, address, port);
    if (protocol === 'tcp' && holders.every(({ state }) => state === TIME_WAIT)) {
      return occupyPort(protocol, address, port, true);
    }
    const who = holders.map(holderText)[0] ?? 'a kernel socket';
    const what = `${protocol} port ${port} of ${formatIpv4(address)}`;
    throw new ArrakisError('ARK_IN_USE', `${what} is taken in the kernel by ${who}`, {
      hint: 'end that program, or choose another port',
      cause: error,
    });
  }
}

interface KernelSocket {
  readonly state: string;
  readonly uid: number;
  readonly inode: string;
}

/** Kernel sockets that have the port on this address or on all, IPv6 ones that take IPv4 among them. */
function socketsAt(protocol: Port['protocol'], address: Ipv4, port: number): KernelSocket[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const own = littleEndianHex(address);
  const mapped = `0000000000000000FFFF0000${own}`;
  const taking = ['00000000', own, '0'.repeat(32), mapped].map((text) => `${text}${suffix}`);
  return [protocol, `${protocol}6`].flatMap((file) =>
    rowsOf(`/proc/self/net/${file}`)
      .filter((row) => taking.includes(row[COLUMN.local]!))
      .map((row) => ({
        state: row[COLUMN.state]!,
        uid: Number(row[COLUMN.uid]),
        inode: row[COLUMN.inode]!,
      })),
  );
}

function rowsOf(file: string): string[][] {
  try {
    const [, ...lines] = fs.readFileSync(file, 'latin1').trimEnd().split('\n');
    return lines.map((line) => line.trim().split(/\s+/));
  } catch {
    // A kernel without IPv6.
    return [];
  }
}

/** As the kernel prints an address: the bytes in the machine's order. */
function littleEndianHex(address: Ipv4): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(address);
  return bytes.toString('hex').toUpperCase();
}

/** `nginx (pid 812)`, or the user when no process shows the socket. */
function holderText({ inode, uid }: KernelSocket): string {
  const wanted = `socket:[${inode}]`;
  for (const pid of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
        if (fs.readlinkSync(`/proc/${pid}/fd/${fd}`) !== wanted) continue;
        const name = fs.readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
        return `${name} (pid ${pid})`;
      }
    } catch {
      // It ended meanwhile, or hides from us.
    }
  }
  return `a process of user ${uid}`;
}
