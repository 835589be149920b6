/**
 * Network namespaces for tests. A test process first leaves the machine's own network with `isolateNetwork`;
 * the other end of a link lives in a `Namespace`. Both hang on descriptors and processes of the test, so that
 * nothing is left when it ends, however it ends.
 */
import {
  type ChildProcess,
  type SpawnOptions,
  type SpawnSyncOptions,
  spawn,
  spawnSync,
} from 'node:child_process';
import fs from 'node:fs';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { setGro, setTxChecksum } from '../../src/ffi/ethtool.ts';
import {
  addAddress,
  createVethPair,
  deleteLink,
  linkByName,
  moveToNamespace,
  requireLink,
  setLinkUp,
  setNeighbour,
  type VethEnd,
} from '../../src/ffi/netlink/index.ts';
import { NetworkNamespace } from '../../src/ffi/network-namespace.ts';
import { unshareNetwork } from '../../src/ffi/process.ts';

const COMMAND_TIMEOUT_MS = 20_000;
const CARRIER_TIMEOUT_MS = 2000;

/** One end of a link that `connect` makes. */
export interface LinkEnd {
  name: string;
  /** 10.0.0.1; without one the end gets no address and stays the test's own. */
  ip?: string;
  prefix?: number;
  mac?: string;
}

export interface ConnectOptions {
  local: LinkEnd;
  remote: LinkEnd;
  mtu?: number;
  queues?: number;
  /** Pin both ends' addresses in both neighbour tables, so that no ARP is seen. False when absent. */
  pinNeighbours?: boolean;
}

/** Put this process in an empty network namespace of its own, loopback up. Needs root; there is no way back. */
export function isolateNetwork(): void {
  unshareNetwork();
  setLinkUp(requireLink('lo').index);
}

/** A second network namespace. */
export class Namespace {
  readonly #network = NetworkNamespace.create();
  readonly #children: ChildProcess[] = [];
  #closed = false;

  /** Descriptor of the namespace; stays this object's. */
  get fd(): number {
    return this.#network.fd;
  }

  /** Path of the namespace, good for `enterNetwork` in this and other processes while it is open. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#network.fd}`;
  }

  /** Call the synchronous `body` with this thread inside; sockets it opens stay inside. */
  run<T>(body: () => T): T {
    return this.#network.run(body);
  }

  /** Run a command inside to its end: what it wrote to stdout. Throws with its stderr when it fails. */
  exec(command: string, args: readonly string[] = [], options: SpawnSyncOptions = {}): string {
    const result = this.run(() =>
      spawnSync(command, args, {
        timeout: COMMAND_TIMEOUT_MS,
        killSignal: 'SIGKILL',
        ...options,
        encoding: 'utf8',
      }),
    );
    if (result.error !== undefined) throw result.error;
    if (result.status !== 0) {
      const line = [command, ...args].join(' ');
      throw new Error(`${line}: exit ${result.status ?? result.signal}\n${result.stderr}`);
    }
    return result.stdout;
  }

  /** Start a command inside; it is killed by `close` if it still runs then. */
  spawn(command: string, args: readonly string[] = [], options: SpawnOptions = {}): ChildProcess {
    const child = this.run(() => spawn(command, args, options));
    this.#children.push(child);
    return child;
  }

  /** End what was spawned inside and let go of the namespace. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const child of this.#children) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    }
    this.#network.close();
  }
}

/**
 * Connect this namespace to `namespace` by a veth pair: both ends up, IPv6 off, checksums finished by the sender
 * and NAPI on, as AF_XDP at either end needs it. Returns the index of each end, and what removes the pair.
 */
export function connect(
  namespace: Namespace,
  options: ConnectOptions,
): { localIndex: number; remoteIndex: number; remove(): void } {
  const { local, remote } = options;
  const pair = createVethPair(vethEnd(local, options), vethEnd(remote, options));
  try {
    moveToNamespace(pair.b, namespace.fd);
    const remoteIndex = namespace.run(() => configureEnd(remote));
    const localIndex = configureEnd(local);
    awaitCarrier(localIndex);
    namespace.run(() => awaitCarrier(remoteIndex));
    if (options.pinNeighbours === true) {
      pinNeighbour(localIndex, remote);
      namespace.run(() => pinNeighbour(remoteIndex, local));
    }
    return { localIndex, remoteIndex, remove: () => removeIfPresent(local.name) };
  } catch (error) {
    removeIfPresent(local.name);
    throw error;
  }
}

function removeIfPresent(name: string): void {
  if (linkByName(name) !== null) deleteLink(name);
}

function vethEnd(end: LinkEnd, options: ConnectOptions): VethEnd {
  return {
    name: end.name,
    ...(end.mac === undefined ? {} : { mac: parseMac(end.mac) }),
    ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
    ...(options.queues === undefined ? {} : { queues: options.queues }),
  };
}

/** Set up the end that is in the calling thread's namespace; its index. */
function configureEnd(end: LinkEnd): number {
  const { index } = requireLink(end.name);
  disableIpv6(end.name);
  setTxChecksum(end.name, false);
  setGro(end.name, true);
  if (end.ip !== undefined) addAddress(index, parseIpv4(end.ip), end.prefix ?? 24);
  setLinkUp(index);
  return index;
}

/** The kernel notes a veth's carrier a moment after its peer is up, and drops what is sent before that. */
function awaitCarrier(index: number): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let ms = 0; ms < CARRIER_TIMEOUT_MS; ms++) {
    if (requireLink(index).running) return;
    Atomics.wait(pause, 0, 0, 1);
  }
  throw new Error(`interface ${requireLink(index).name} has no carrier`);
}

function pinNeighbour(index: number, of: LinkEnd): void {
  if (of.ip !== undefined && of.mac !== undefined) {
    setNeighbour(index, parseIpv4(of.ip), parseMac(of.mac));
  }
}

/** Keep router solicitations and the like off an interface. A kernel without IPv6 has nothing to turn off. */
export function disableIpv6(name: string): void {
  const path = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
  if (fs.existsSync(path)) fs.writeFileSync(path, '1');
}
