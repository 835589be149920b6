/**
 * The web servers that `arrakis bench http` compares, each serving the same page of 1,024 bytes. As in bench echo the
 * server has processor 0 and the client 1.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatIpv4, formatMac } from '../../src/base/address.ts';
import { LabDaemon, type VethLab } from '../echo/lab.ts';
import { makeScratch, type Running, removeScratch, start, startNode } from '../processes.ts';

export const SERVER_CPU = 0;
const CLIENT_CPU = 1;
export const PORT = 80;
export const PAGE = '/page.html';
const PAGE_BYTES = 1024;
const SOFT_SERVER = '10.77.0.7';
export const SOFT_CLIENT = '10.77.0.8';
/** A thousand connections with a response each, and what is received meanwhile. */
const FRAMES = 8192;

const HTTP_APP = fileURLToPath(new URL('../../apps/http/main.js', import.meta.url));
const PAGE_PROGRAM = fileURLToPath(new URL('../peers/http-page.js', import.meta.url));

/** A started server, and how a client gets there. */
export interface Server {
  readonly address: string;
  readonly mac: string | null;
  /** Arguments of client.js. */
  readonly client: string[];
  readonly clientEnv: Record<string, string>;
  stop(): Promise<void>;
}

export interface HttpSystem {
  readonly name: string;
  readonly link: 'veth' | 'softnic';
  readonly boundBy: string;
  /** Why it cannot run on this machine, or null. */
  missing(): string | null;
  /** `root` has the page. */
  start(lab: VethLab | null, root: string): Promise<Server>;
}

/** A folder with the page in it. */
export function makeRoot(): string {
  const root = makeScratch('arrakis-www-');
  fs.chmodSync(root, 0o755);
  const line = '<p>The operating system is the control plane.</p>\n';
  const page = line.repeat(Math.ceil(PAGE_BYTES / line.length)).slice(0, PAGE_BYTES);
  fs.writeFileSync(path.join(root, PAGE), page);
  return root;
}

const NGINX = '/usr/sbin/nginx';

function onVeth(lab: VethLab, stop: () => Promise<void>): Server {
  return {
    address: formatIpv4(lab.server.address),
    mac: formatMac(lab.server.mac),
    client: ['xdp', lab.client.interfaceName],
    clientEnv: {},
    stop,
  };
}

function nginx(): HttpSystem {
  return {
    name: 'kernel/nginx',
    link: 'veth',
    boundBy: "the kernel's TCP path both ways, and three system calls a request",
    missing: () => (fs.existsSync(NGINX) ? null : 'nginx is not installed (package nginx-light)'),
    async start(lab, root) {
      const dir = makeScratch('arrakis-nginx-');
      fs.writeFileSync(path.join(dir, 'nginx.conf'), nginxConfiguration(dir, root));
      const args = ['-p', dir, '-c', path.join(dir, 'nginx.conf'), '-e', path.join(dir, 'error')];
      const running = start(NGINX, args, { cpus: [SERVER_CPU], network: lab!.server.network });
      return onVeth(lab!, async () => {
        await running.stop();
        removeScratch(dir);
      });
    },
  };
}

/** One worker, as there is one core; nothing is logged; connections stay. */
function nginxConfiguration(dir: string, root: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const paths = temporary.map((name) => `${name}_temp_path ${dir}/${name};`).join(' ');
  return `daemon off; worker_processes 1; pid ${dir}/pid; user root;
events { worker_connections 8192; multi_accept on; }
http {
  ${paths} types { text/html html; }
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; open_file_cache max=100;
  keepalive_timeout 600; keepalive_requests 1000000000;
  server { listen ${PORT} backlog=4096 reuseport; root ${root}; }
}
`;
}

/** The program of bench/peers/http-page.ts on the kernel's sockets. */
function nodeHttp(): HttpSystem {
  return {
    name: 'kernel/node-http',
    link: 'veth',
    boundBy: "node:http itself, and the kernel's TCP path",
    missing: () => null,
    async start(lab, root) {
      const address = formatIpv4(lab!.server.address);
      const args = [address, String(PORT), path.join(root, PAGE)];
      const running = startNode(new URL(`file://${PAGE_PROGRAM}`), args, {
        cpus: [SERVER_CPU],
        network: lab!.server.network,
      });
      return onVeth(lab!, () => running.stop());
    },
  };
}

/** One of our programs on a VNIC of the veth interface, under a daemon in the server's namespace. */
async function onVnic(lab: VethLab, mode: string, args: string[]): Promise<Server> {
  const daemon = await LabDaemon.start(lab.server.network, ['--no-tap']);
  const spec = `${lab.server.interfaceName},mode=${mode},port=tcp:${PORT},frames=${FRAMES}`;
  const placed = ['--vnic', spec, '--cpu', String(SERVER_CPU), '--user', 'nobody'];
  const running = daemon.run([...placed, ...args], [SERVER_CPU]);
  return onVeth(lab, async () => {
    await running.stop();
    await daemon.close();
  });
}

const BOUND_N = 'the AF_XDP copy path of the veth driver, a system call a batch, and our TCP';

/** apps/http, on the native interface. */
function native(mode: 'direct' | 'switched'): HttpSystem {
  return {
    name: `arrakis/N-${mode}`,
    link: 'veth',
    boundBy: BOUND_N,
    missing: () => null,
    start: (lab, root) => onVnic(lab!, mode, ['--', HTTP_APP, '--root', root]),
  };
}

/** The program of `kernel/node-http`, unchanged, on the VNIC. */
function posix(mode: 'direct' | 'switched'): HttpSystem {
  return {
    name: `arrakis/P-${mode}`,
    link: 'veth',
    boundBy: 'node:http itself, and what N is bound by',
    missing: () => null,
    start: (lab, root) => {
      const address = formatIpv4(lab!.server.address);
      const program = [PAGE_PROGRAM, address, String(PORT), path.join(root, PAGE)];
      return onVnic(lab!, mode, ['--posix', '--', ...program]);
    },
  };
}

/** Application to application over the software NIC. */
function nativeOnSoftNic(): HttpSystem {
  return {
    name: 'arrakis/N-virtio',
    link: 'softnic',
    boundBy: 'three processes on two processors, and our TCP at both ends',
    missing: () => null,
    async start(_lab, root) {
      const daemon = await LabDaemon.start(undefined, [
        '--no-tap',
        '--nic-cpu',
        String(CLIENT_CPU),
      ]);
      const spec = `soft0,ip=${SOFT_SERVER}/24,frames=${FRAMES}`;
      const user = process.getuid?.() === 0 ? ['--user', 'nobody'] : [];
      const running: Running = daemon.run([
        ...['--vnic', spec, ...user],
        ...['--', HTTP_APP, '--root', root],
      ]);
      return {
        address: SOFT_SERVER,
        mac: null,
        client: ['vnic', `soft0,ip=${SOFT_CLIENT}/24,frames=${FRAMES}`],
        clientEnv: daemon.env,
        async stop() {
          await running.stop();
          await daemon.close();
        },
      };
    },
  };
}

/** What can be compared here: on a veth pair as root, otherwise the software NIC only. */
export function httpSystems(): HttpSystem[] {
  if (process.getuid?.() !== 0) return [nativeOnSoftNic()];
  return [
    nginx(),
    nodeHttp(),
    native('direct'),
    native('switched'),
    posix('direct'),
    posix('switched'),
    nativeOnSoftNic(),
  ];
}
