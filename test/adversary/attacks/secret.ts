/** What an attacker can reach of others: it looks for a secret in all memory that it shares, and tries every door. */
import fs from 'node:fs';
import path from 'node:path';
import { closeFd } from '../../../src/ffi/fd.ts';
import { connectUnix, SOCK_SEQPACKET, SOCK_STREAM } from '../../../src/ffi/unix.ts';
import { codeOf } from '../actor.ts';

const CHUNK = 1 << 20;

/** Shared mappings of this process, as byte ranges. */
function sharedMappings(): { from: number; to: number }[] {
  const mappings: { from: number; to: number }[] = [];
  for (const line of fs.readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const found = /^([0-9a-f]+)-([0-9a-f]+) r..s /.exec(line);
    if (found !== null) {
      mappings.push({ from: Number.parseInt(found[1]!, 16), to: Number.parseInt(found[2]!, 16) });
    }
  }
  return mappings;
}

/** How often `secret` stands in memory that this process shares with somebody, and how many bytes that is. */
export function searchShared(secret: Buffer): { found: number; bytes: number } {
  const memory = fs.openSync('/proc/self/mem', 'r');
  const chunk = Buffer.alloc(CHUNK + secret.length - 1);
  let found = 0;
  let bytes = 0;
  try {
    for (const { from, to } of sharedMappings()) {
      for (let at = from; at < to; at += CHUNK) {
        const want = Math.min(chunk.length, to - at);
        const length = readOr0(memory, chunk, want, at);
        bytes += Math.min(length, CHUNK);
        const here = chunk.subarray(0, length);
        for (let i = here.indexOf(secret); i >= 0; i = here.indexOf(secret, i + 1)) found++;
      }
    }
  } finally {
    fs.closeSync(memory);
  }
  return { found, bytes };
}

/** Rings of a socket may not be read this way. */
function readOr0(fd: number, into: Buffer, length: number, at: number): number {
  try {
    return fs.readSync(fd, into, 0, length, at);
  } catch {
    return 0;
  }
}

/** What of others opened to us; each is what it was. Empty is how it should be. */
export function tryDoors(pids: readonly number[], directory: string): string[] {
  const opened: string[] = [];
  const attempt = (what: string, body: () => unknown): void => {
    try {
      body();
      opened.push(what);
    } catch (error) {
      // Whatever is wrong, it is not ours to have; a mistake of this test would be another error.
      const code = codeOf(error);
      if (!/^E(ACCES|PERM|SRCH|NOENT|ISDIR|CONNREFUSED|PROTOTYPE|NXIO|NOTDIR)$/.test(code)) {
        opened.push(`${what}: ${code}`);
      }
    }
  };
  for (const pid of pids) {
    for (const name of ['mem', 'maps', 'map_files', 'environ', 'auxv', 'cwd/.', 'root/.']) {
      attempt(`/proc/${pid}/${name}`, () => {
        const door = `/proc/${pid}/${name}`;
        if (name === 'map_files' || name.endsWith('.')) return fs.readdirSync(door);
        return fs.readSync(fs.openSync(door, 'r'), Buffer.alloc(1));
      });
    }
    for (let fd = 0; fd < 64; fd++) {
      attempt(`/proc/${pid}/fd/${fd}`, () => fs.openSync(`/proc/${pid}/fd/${fd}`, 'r'));
    }
    for (const signal of ['SIGSTOP', 'SIGKILL', 'SIGUSR1'] as const) {
      attempt(`${signal} to ${pid}`, () => process.kill(pid, signal));
    }
  }
  const controlSocket = path.basename(process.env.ARRAKIS_SOCKET!);
  for (const name of fs.readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const file = path.join(directory, name);
    // The one door that is open to everybody, and a directory that may be listed.
    if (name === controlSocket || fs.statSync(file).isDirectory()) continue;
    attempt(`read ${name}`, () => fs.openSync(file, 'r'));
    attempt(`write ${name}`, () => fs.openSync(file, 'r+'));
    attempt(`remove ${name}`, () => fs.unlinkSync(file));
    for (const type of [SOCK_STREAM, SOCK_SEQPACKET] as const) {
      attempt(`connect to ${name}`, () => closeFd(connectUnix(file, type)));
    }
  }
  attempt('a file in the run directory', () => fs.writeFileSync(path.join(directory, 'x'), ''));
  return opened;
}
