/** Threads, users and namespaces of this process: affinity, credentials, prctl, unshare, setns. */
import fs from 'node:fs';
import { closeFd } from './fd.ts';
import { bind, check } from './libc.ts';

const schedSetaffinity = bind<(tid: number, length: number, mask: Uint8Array) => number>(
  'sched_setaffinity',
  'int',
  ['int', 'size_t', 'void *'],
);
const schedGetaffinity = bind<(tid: number, length: number, mask: Uint8Array) => number>(
  'sched_getaffinity',
  'int',
  ['int', 'size_t', 'void *'],
);
const prctl = bind<(option: number, a: number, b: number, c: number, d: number) => number>(
  'prctl',
  'int',
  ['int', 'ulong', 'ulong', 'ulong', 'ulong'],
);
const unshareCall = bind<(flags: number) => number>('unshare', 'int', ['int']);
const setnsCall = bind<(fd: number, flags: number) => number>('setns', 'int', ['int', 'int']);

/** Give the processor to another runnable thread of this core. */
export const schedYield = bind<() => number>('sched_yield', 'int', []);

const CPU_MASK_BYTES = 128;
const PR_SET_TIMERSLACK = 29;
const PR_SET_NO_NEW_PRIVS = 38;
const CLONE_NEWNET = 0x40000000;

/** Pin the calling thread to `cpus` (numbers as in /proc/cpuinfo). */
export function setAffinity(cpus: readonly number[]): void {
  const mask = Buffer.alloc(CPU_MASK_BYTES);
  for (const cpu of cpus) mask[cpu >> 3]! |= 1 << (cpu & 7);
  check(schedSetaffinity(0, mask.length, mask), 'sched_setaffinity', cpus.join(','));
}

/** CPUs that the calling thread may run on. */
export function getAffinity(): number[] {
  const mask = Buffer.alloc(CPU_MASK_BYTES);
  check(schedGetaffinity(0, mask.length, mask), 'sched_getaffinity');
  const cpus: number[] = [];
  for (let cpu = 0; cpu < mask.length * 8; cpu++) {
    if ((mask[cpu >> 3]! & (1 << (cpu & 7))) !== 0) cpus.push(cpu);
  }
  return cpus;
}

/** How much later than asked for the kernel may end a wait of the calling thread (50 us at first). */
export function setTimerSlack(nanoseconds: number): void {
  check(prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0), 'prctl', 'PR_SET_TIMERSLACK', nanoseconds);
}

/** Never again gain privileges by executing a program. */
export function setNoNewPrivileges(): void {
  check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'prctl', 'PR_SET_NO_NEW_PRIVS');
}

/** Put the calling thread in a new, empty network namespace. What it opens from now on lives there. */
export function unshareNetwork(): void {
  check(unshareCall(CLONE_NEWNET), 'unshare', 'CLONE_NEWNET');
}

/** Put the calling thread in the network namespace that `fd` refers to, called `name` in messages. */
export function setNetwork(fd: number, name: string | number = fd): void {
  check(setnsCall(fd, CLONE_NEWNET), 'setns', name);
}

/** Put the calling thread in the network namespace at `path`, such as /proc/PID/ns/net. */
export function enterNetwork(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    setNetwork(fd, path);
  } finally {
    closeFd(fd);
  }
}
