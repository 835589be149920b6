/** The Debian packages that tests and benchmarks use, and how to get those that are missing. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

/** What each package is for. */
export const PACKAGES = {
  iproute2: 'ip: checks what our netlink code did',
  ethtool: 'checks what our ethtool code did',
  'iputils-ping': 'ping as a peer',
  tcpdump: 'reads our captures',
  'dpdk-dev': 'dpdk-testpmd as a vhost-user peer',
  'qemu-system-x86': 'a guest on a port of the software NIC',
  'ipxe-qemu': 'the boot ROM that is that guest',
  gcc: 'compiles the C peers of the benchmarks',
  'libc6-dev': 'headers for the C peers',
  'dnsmasq-base': 'a DHCP and DNS server as a peer',
  strace: 'shows that the data path makes no system calls',
  'redis-server': 'a server for clients that know nothing of Arrakis',
  'netcat-openbsd': 'nc as a UDP and TCP peer',
  bpftool: 'lists attached XDP programs',
  nmap: 'scans TCP, as one who means no good',
  hping3: 'floods TCP with segments of any flags',
  'python3-scapy': 'sends TCP with random headers, options and fragments',
} as const satisfies Record<string, string>;

const UPDATE_TIMEOUT_MS = 300_000;
const INSTALL_TIMEOUT_MS = 900_000;
const LOCK_WAIT_S = 120;

/** Of `packages`, those that dpkg does not know as installed. Null where there is no dpkg. */
export function missingPackages(packages: readonly string[]): string[] | null {
  if (!fs.existsSync('/usr/bin/dpkg-query')) return null;
  const format = `\${Package} \${db:Status-Status}\n`;
  // It exits with 1 when it knows nothing of one of them, and still lists the others.
  const { stdout } = spawnSync('dpkg-query', ['-W', `-f=${format}`, ...packages], {
    encoding: 'utf8',
  });
  const installed = new Set<string>();
  for (const line of stdout.split('\n')) {
    const [name, status] = line.split(' ');
    if (status === 'installed') installed.add(name!);
  }
  return packages.filter((name) => !installed.has(name));
}

/** Install what is missing, if we may. Silent when nothing is; otherwise says what it does, or cannot do. */
export function ensurePackages(log: (line: string) => void): void {
  const wanted = Object.keys(PACKAGES);
  const missing = missingPackages(wanted);
  if (missing === null) {
    log(`not Debian: tests may be skipped; they use ${wanted.join(' ')}`);
    return;
  }
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    log(`tests may be skipped; missing packages: apt-get install ${missing.join(' ')}`);
    return;
  }
  log(`installing ${missing.join(' ')}`);
  apt(['update'], UPDATE_TIMEOUT_MS, log);
  apt(['install', '-y', '--no-install-recommends', ...missing], INSTALL_TIMEOUT_MS, log);
  const still = missingPackages(missing) ?? [];
  if (still.length > 0) log(`could not install ${still.join(' ')}`);
}

function apt(args: string[], timeoutMs: number, log: (line: string) => void): void {
  const result = spawnSync('apt-get', ['-q', '-o', `DPkg::Lock::Timeout=${LOCK_WAIT_S}`, ...args], {
    encoding: 'utf8',
    timeout: timeoutMs,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (result.status !== 0) {
    log(`apt-get ${args[0]} failed: ${result.error?.message ?? result.stderr.trim()}`);
  }
}
