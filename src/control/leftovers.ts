/**
 * What a daemon that was killed may have left: files in its run directory, veth pairs, a device process.
 * The next daemon in the same directory clears the files and links by itself; `arrakis doctor` shows and removes all.
 */
import fs from 'node:fs';
import path from 'node:path';
import { findStaleLinks, removeStaleLinks } from '../drivers/af-xdp/attach.ts';
import { softnicScript } from './devices/softnic.ts';
import { pidPath, portsPath, socketPath } from './paths.ts';
import { isClaimed } from './run-directory.ts';

export interface Leftover {
  readonly kind: 'file' | 'link' | 'process';
  /** Path, interface name or pid. */
  readonly name: string;
  /** A sentence for people, name included. */
  readonly description: string;
}

/** Start of the alias of every veth link that the daemon in `dir` makes. */
export const linkAlias = (dir: string): string => `arrakis:${dir}:`;

/** What lies about of a daemon in `dir`; nothing while one runs there. */
export function findLeftovers(dir: string): Leftover[] {
  if (isClaimed(dir)) return [];
  const found: Leftover[] = [];
  for (const [file, what] of [
    [socketPath(dir), 'control socket that nobody serves'],
    [pidPath(dir), 'pid file that nobody holds'],
    [portsPath(dir), 'vhost-user sockets'],
  ] as const) {
    if (fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined) {
      found.push({ kind: 'file', name: file, description: `${what}: ${file}` });
    }
  }
  for (const link of findStaleLinks(linkAlias(dir))) {
    found.push({ kind: 'link', name: link.name, description: `veth pair: ${link.name}` });
  }
  for (const pid of orphanedSoftnics()) {
    found.push({
      kind: 'process',
      name: String(pid),
      description: `software NIC without a daemon: pid ${pid}`,
    });
  }
  return found;
}

/** Remove them; returns what was removed. */
export function removeLeftovers(dir: string): Leftover[] {
  const found = findLeftovers(dir);
  for (const { kind, name } of found) {
    if (kind === 'file') fs.rmSync(name, { recursive: true, force: true });
    else if (kind === 'process') kill(Number(name));
  }
  if (found.some(({ kind }) => kind === 'link')) removeStaleLinks(linkAlias(dir));
  return found;
}

/** The software NIC of a daemon that is gone has been given to init, or to whoever reaps for it. */
function orphanedSoftnics(): number[] {
  const script = softnicScript();
  const orphans: number[] = [];
  for (const entry of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    if (!argumentsOf(entry).includes(script)) continue;
    const parent = parentOf(entry);
    const daemon = argumentsOf(String(parent)).some((arg) =>
      arg.endsWith(`control${path.sep}main.js`),
    );
    if (parent !== process.pid && !daemon) orphans.push(Number(entry));
  }
  return orphans;
}

function argumentsOf(pid: string): string[] {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

function parentOf(pid: string): number {
  try {
    return Number(/^PPid:\s*(\d+)$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return 0;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself meanwhile.
  }
}
