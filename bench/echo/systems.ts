/**
 * The servers that `arrakis bench echo` compares. Each says what it is, why it cannot run here (if so), starts, and
 * says how the client reaches it. On a wire the server has processor 0 and the client 1, each for all its work
 * (own-core.ts).
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatIpv4, formatMac } from '../../src/base/address.ts';
import { makeScratch, type Running, removeScratch, start, startNode } from '../processes.ts';
import { ECHO_APP, LabDaemon, type VethLab } from './lab.ts';

export const ECHO_PORT = 7;
/** Kernel ports below 1024 are not for everyone: on loopback the echo has a high one. */
const LOOPBACK_PORT = 20_007;
export const SERVER_CPU = 0;
const CLIENT_CPU = 1;
/**
 * How often the server's interface is polled under load (own-core.ts): a timer costs time, and one that is late leaves a
 * server without work. What was measured, and how the ratios depend on it, is in docs/af-xdp.md.
 */
const POLL_EVERY_US = 100;
/** What `kernel/c-tuned` was fastest with: its socket polls by itself, the timer is only the last resort. */
const POLL_EVERY_US_SELF_POLLED = 200;
/** The application's address where it has one of its own on the software NIC. */
const SOFT_SERVER = '10.77.0.7';
const SOFT_CLIENT = '10.77.0.8';

/** A started server: where it answers and how to end it. */
export interface Server {
  address: string;
  port: number;
  /** Null where the client asks by ARP. */
  mac: string | null;
  /** Arguments of client.js. */
  client: string[];
  clientAddress: string;
  clientEnv: Record<string, string>;
  /** Null: any. */
  clientCpus: readonly number[] | null;
  stop(): Promise<void>;
}

export interface EchoSystem {
  readonly name: string;
  readonly link: 'veth' | 'softnic' | 'loopback';
  readonly boundBy: string;
  /** Microseconds between polls of the server's interface under load; on a veth only. */
  readonly pollEveryUs: number;
  /** Why it cannot run on this machine, or null. */
  missing(): string | null;
  start(lab: VethLab | null): Promise<Server>;
}

const isRoot = (): boolean => process.getuid?.() === 0;

function which(program: string): string | null {
  for (const dir of (process.env.PATH ?? '').split(':').concat('/usr/bin', '/usr/sbin')) {
    const file = path.join(dir, program);
    if (fs.existsSync(file)) return file;
  }
  return null;
}

/** What the client needs to know of a server behind the lab's veth pair. */
function onVeth(lab: VethLab, stop: () => Promise<void>): Server {
  return {
    address: formatIpv4(lab.server.address),
    port: ECHO_PORT,
    mac: formatMac(lab.server.mac),
    client: ['xdp', lab.client.interfaceName],
    clientAddress: formatIpv4(lab.client.address),
    clientEnv: {},
    clientCpus: [CLIENT_CPU],
    stop,
  };
}

/** A server that is one process, behind the veth pair or on loopback. */
function oneProcess(lab: VethLab | null, launch: (address: string) => Running): Server {
  const address = lab === null ? '127.0.0.1' : formatIpv4(lab.server.address);
  const running = launch(address);
  const stop = () => running.stop();
  if (lab !== null) return onVeth(lab, stop);
  return {
    address,
    port: LOOPBACK_PORT,
    mac: null,
    client: ['kernel'],
    clientAddress: address,
    clientEnv: {},
    clientCpus: [CLIENT_CPU],
    stop,
  };
}

const placement = (lab: VethLab | null) => ({
  cpus: [SERVER_CPU],
  ...(lab === null ? {} : { network: lab.server.network }),
});

/**
 * The C echo, compiled to the temporary directory once per call. `polls`: as fast as we could make it, with recvmmsg,
 * sendmmsg and SO_PREFER_BUSY_POLL, which only root may set and only an interface has; otherwise as programs are.
 */
function kernelC(name: string, link: 'veth' | 'loopback', polls: boolean): EchoSystem {
  const source = fileURLToPath(new URL('../../../bench/peers/udp_echo.c', import.meta.url));
  return {
    name,
    link,
    boundBy:
      link === 'veth'
        ? `the kernel's UDP path both ways${polls ? '' : ', two system calls a packet, and waking up'}`
        : "the client's and the server's system calls",
    pollEveryUs: polls ? POLL_EVERY_US_SELF_POLLED : POLL_EVERY_US,
    missing: () => (which('gcc') === null ? 'gcc is not installed' : null),
    async start(lab) {
      const dir = makeScratch('arrakis-c-');
      const binary = path.join(dir, 'udp_echo');
      execFileSync('gcc', ['-O2', '-Wall', '-o', binary, source]);
      const mode = polls ? ['poll'] : [];
      const server = oneProcess(lab, (address) => {
        const port = String(lab === null ? LOOPBACK_PORT : ECHO_PORT);
        return start(binary, [address, port, ...mode], placement(lab));
      });
      const stop = async () => {
        await server.stop();
        removeScratch(dir);
      };
      return { ...server, stop };
    },
  };
}

function kernelNode(link: 'veth' | 'loopback'): EchoSystem {
  const script = new URL('../peers/dgram-echo.js', import.meta.url);
  return {
    name: 'kernel/node-dgram',
    link,
    boundBy: 'an event, a Buffer and two system calls per packet in libuv',
    pollEveryUs: POLL_EVERY_US,
    missing: () => null,
    async start(lab) {
      return oneProcess(lab, (address) =>
        startNode(
          script,
          [address, String(lab === null ? LOOPBACK_PORT : ECHO_PORT)],
          placement(lab),
        ),
      );
    },
  };
}

function testpmd(): EchoSystem {
  return {
    name: 'dpdk/testpmd',
    link: 'veth',
    boundBy: 'the AF_XDP copy path of the veth driver (C, net_af_xdp, macswap)',
    pollEveryUs: POLL_EVERY_US,
    missing: () =>
      which('dpdk-testpmd') === null ? 'dpdk-testpmd is not installed (package dpdk-dev)' : null,
    async start(lab) {
      // DPDK keeps files there, and leaves them behind.
      const dir = makeScratch('arrakis-dpdk-');
      const eal = [
        ...['-l', `${SERVER_CPU},${CLIENT_CPU}`, '--main-lcore', String(CLIENT_CPU)],
        ...['--no-huge', '-m', '512', '--no-pci', '--no-telemetry', '--file-prefix=arrakis'],
        `--vdev=net_af_xdp0,iface=${lab!.server.interfaceName}`,
      ];
      const app = ['--forward-mode=macswap', '--no-mlockall', '--total-num-mbufs=16384'];
      const running = start('dpdk-testpmd', [...eal, '--', ...app, '--auto-start'], {
        network: lab!.server.network,
        env: { RUNTIME_DIRECTORY: dir },
      });
      return onVeth(lab!, async () => {
        await running.stop();
        removeScratch(dir);
      });
    },
  };
}

/** Our echo application on a VNIC of the veth interface, as user nobody, under a daemon in the server's namespace. */
function afXdp(mode: 'direct' | 'switched'): EchoSystem {
  return {
    name: `arrakis/af-xdp-${mode}`,
    link: 'veth',
    boundBy:
      mode === 'direct'
        ? 'the AF_XDP copy path of the veth driver: a system call a batch, and the receive softirq'
        : 'two veth crossings each way, the XDP switch among them',
    pollEveryUs: POLL_EVERY_US,
    missing: () => null,
    async start(lab) {
      const daemon = await LabDaemon.start(lab!.server.network, ['--no-tap']);
      const spec = `${lab!.server.interfaceName},mode=${mode},port=udp:${ECHO_PORT}`;
      const running = daemon.run(
        ['--vnic', spec, '--cpu', String(SERVER_CPU), '--user', 'nobody', '--', ECHO_APP],
        [SERVER_CPU],
      );
      return onVeth(lab!, async () => {
        await running.stop();
        await daemon.close();
      });
    },
  };
}

/** Application to application over the software NIC; needs no privilege at all. */
function softNic(): EchoSystem {
  return {
    name: 'arrakis/virtio',
    link: 'softnic',
    boundBy:
      'the software NIC, which copies and checks every packet twice, on the same two processors',
    pollEveryUs: 0,
    missing: () => null,
    async start() {
      // Three processes on two processors: the device shares the client's, so that the server has its own.
      const daemon = await LabDaemon.start(undefined, [
        '--no-tap',
        '--nic-cpu',
        String(CLIENT_CPU),
      ]);
      const user = isRoot() ? ['--user', 'nobody'] : [];
      const spec = `soft0,ip=${SOFT_SERVER}/24`;
      const running = daemon.run(['--vnic', spec, ...user, '--', ECHO_APP]);
      return {
        address: SOFT_SERVER,
        port: ECHO_PORT,
        mac: null,
        client: ['vnic', `soft0,ip=${SOFT_CLIENT}/24`],
        clientAddress: SOFT_CLIENT,
        clientEnv: daemon.env,
        clientCpus: null,
        async stop() {
          await running.stop();
          await daemon.close();
        },
      };
    },
  };
}

/** What can be compared: on a veth pair as root, otherwise the software NIC beside kernel sockets on loopback. */
export function echoSystems(): EchoSystem[] {
  if (!isRoot()) return [kernelC('kernel/c', 'loopback', false), kernelNode('loopback'), softNic()];
  return [
    kernelC('kernel/c', 'veth', false),
    kernelC('kernel/c-tuned', 'veth', true),
    kernelNode('veth'),
    testpmd(),
    afXdp('direct'),
    afXdp('switched'),
    softNic(),
  ];
}
