/**
 * Where the echo benchmark runs: two network namespaces and a veth pair between them, with the offloads off that
 * AF_XDP cannot see through (see docs/af-xdp.md), and a daemon in the server's namespace with a run directory of its
 * own. Nothing of it outlives `close`, and the namespaces do not outlive this process.
 */
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Ipv4, type Mac, parseIpv4 } from '../../src/base/address.ts';
import { removeLeftovers } from '../../src/control/leftovers.ts';
import { socketPath } from '../../src/control/paths.ts';
import { setGro, setTxChecksum } from '../../src/ffi/ethtool.ts';
import {
  addAddress,
  createVethPair,
  deleteLink,
  linkByName,
  moveToNamespace,
  setLinkUp,
  setNeighbour,
} from '../../src/ffi/netlink/index.ts';
import { NetworkNamespace } from '../../src/ffi/network-namespace.ts';
import { makeScratch, type Running, removeScratch, startNode } from '../processes.ts';

const PREFIX = 24;
const DAEMON_READY_MS = 10_000;
const compiled = (file: string): URL => new URL(`../../${file}`, import.meta.url);

export const CLI = compiled('src/cli/main.js');
/** Path of the compiled echo application. */
export const ECHO_APP = fileURLToPath(compiled('apps/echo/main.js'));

/** One end of the veth pair. */
export interface LabEnd {
  network: NetworkNamespace;
  interfaceName: string;
  address: Ipv4;
  mac: Mac;
}

export interface LabOptions {
  /** Put the server's end in the namespace that we are in, so that the machine's own programs reach it. */
  serverHere?: boolean;
  serverInterface?: string;
  serverAddress?: string;
  clientAddress?: string;
  /** Receive and transmit queues of both ends. Default 1. */
  queues?: number;
  /** Leave checksum and segmentation offload on: for kernels among themselves, as AF_XDP cannot see through it. */
  keepOffloads?: boolean;
}

/** Two namespaces and the link between them. Needs root. */
export class VethLab {
  readonly server: LabEnd;
  readonly client: LabEnd;

  private constructor(server: LabEnd, client: LabEnd) {
    this.server = server;
    this.client = client;
  }

  static create(options: LabOptions = {}): VethLab {
    const client = end(
      NetworkNamespace.create(),
      'cli0',
      options.clientAddress ?? '10.78.0.2',
      0x02_00_00_78_00_02,
    );
    const server = end(
      options.serverHere === true ? NetworkNamespace.current() : NetworkNamespace.create(),
      options.serverInterface ?? 'srv0',
      options.serverAddress ?? '10.78.0.1',
      0x02_00_00_78_00_01,
    );
    const lab = new VethLab(server, client);
    try {
      lab.#connect(options.queues ?? 1, options.keepOffloads ?? false);
    } catch (error) {
      lab.close();
      throw error;
    }
    return lab;
  }

  #connect(queues: number, keepOffloads: boolean): void {
    const { server, client } = this;
    server.network.run(() => {
      createVethPair(
        { name: server.interfaceName, mac: server.mac, queues },
        { name: client.interfaceName, mac: client.mac, queues },
      );
      moveToNamespace(linkByName(client.interfaceName)!.index, client.network.fd);
    });
    configure(server, client, keepOffloads);
    configure(client, server, keepOffloads);
  }

  /** Remove the link and leave the namespaces; they end with their last process. Idempotent. */
  close(): void {
    this.server.network.run(() => {
      const link = linkByName(this.server.interfaceName);
      if (link !== null) deleteLink(link.index);
    });
    this.server.network.close();
    this.client.network.close();
  }
}

function end(network: NetworkNamespace, interfaceName: string, address: string, mac: Mac): LabEnd {
  return { network, interfaceName, address: parseIpv4(address), mac };
}

function configure(here: LabEnd, there: LabEnd, keepOffloads: boolean): void {
  here.network.run(() => {
    const link = linkByName(here.interfaceName)!;
    fs.writeFileSync(`/proc/sys/net/ipv6/conf/${here.interfaceName}/disable_ipv6`, '1');
    if (!keepOffloads) setTxChecksum(here.interfaceName, false);
    setGro(here.interfaceName, true);
    addAddress(link.index, here.address, PREFIX);
    setLinkUp(link.index);
    setNeighbour(link.index, there.address, there.mac);
  });
}

/** A daemon of our own, in `network`, with its run directory under the temporary directory. */
export class LabDaemon {
  readonly dir: string;
  readonly #running: Running;
  readonly network: NetworkNamespace | undefined;

  private constructor(dir: string, running: Running, network: NetworkNamespace | undefined) {
    this.dir = dir;
    this.#running = running;
    this.network = network;
  }

  static async start(
    network: NetworkNamespace | undefined,
    args: readonly string[],
  ): Promise<LabDaemon> {
    const dir = makeScratch('arrakis-');
    fs.chmodSync(dir, 0o755);
    const running = startNode(compiled('src/control/main.js'), ['--dir', dir, ...args], {
      ...(network === undefined ? {} : { network }),
    });
    const daemon = new LabDaemon(dir, running, network);
    const end = Date.now() + DAEMON_READY_MS;
    while (!fs.existsSync(socketPath(dir))) {
      if (!running.alive || Date.now() > end) {
        await daemon.close();
        throw new Error(`arrakisd did not start:\n${running.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return daemon;
  }

  get env(): Record<string, string> {
    return { ARRAKIS_DIR: this.dir };
  }

  get output(): string {
    return this.#running.output;
  }

  /** `arrakis run ARGS` under this daemon. */
  run(args: readonly string[], cpus?: readonly number[]): Running {
    return startNode(CLI, ['run', ...args], {
      env: this.env,
      ...(cpus === undefined ? {} : { cpus }),
      ...(this.network === undefined ? {} : { network: this.network }),
    });
  }

  /** End the daemon, and what it left if it was killed: the keeper and the software NIC would stay for the next one. */
  async close(): Promise<void> {
    await this.#running.stop();
    if (fs.existsSync(this.dir)) removeLeftovers(this.dir);
    removeScratch(this.dir);
  }
}
