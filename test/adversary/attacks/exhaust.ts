/** Taking all there is, and never giving way: acts for exhaustion.test.ts. */
import {
  closeAll,
  closeFd,
  POLLHUP,
  POLLIN,
  pollOne,
  setNonBlocking,
} from '../../../src/ffi/fd.ts';
import { connectUnix, SOCK_SEQPACKET, sendMessage } from '../../../src/ffi/unix.ts';
import { encodeMessage, REQ } from '../../../src/ring/vhost-user.ts';
import { sleep } from '../../support/until.ts';
import { codeOf } from '../actor.ts';
import { Control } from './control.ts';

const TRIES_MAX = 2000;
const PIPELINE = 64;
const socketPath = process.env.ARRAKIS_SOCKET!;

interface Taken {
  /** What was got, over all connections. */
  readonly made: number;
  /** Why each connection got no more. */
  readonly codes: string[];
}

type Greed = (control: Control, n: number, extra: Record<string, unknown>) => Promise<unknown>;

const GREED: Readonly<Record<string, Greed>> = {
  async capabilities(control) {
    const { capabilities } = (await control.ask('cap.list')) as {
      capabilities: { cap: number; kind: string }[];
    };
    return control.ask('cap.copy', { cap: capabilities.find(({ kind }) => kind === 'rate')!.cap });
  },
  names: (control, n) => control.ask('name.make', { path: `/app/x-${control.domain}-${n}` }),
  watches: (control) => control.ask('name.watch', { path: '/app' }),
  regions: (control) => control.ask('region.create', { bytes: 4096 }),
  memory: (control) => control.ask('region.create', { bytes: 64 << 20 }),
  endpoints: (control, n) =>
    control.ask('endpoint.create', { path: `/app/e-${control.domain}-${n}` }),
  async connections(control, _n, { path }) {
    for (let late = 0; ; late++) {
      try {
        return await control.ask('endpoint.connect', { path }, (fds) => silent.push(...fds));
      } catch (error) {
        // One that has not accepted those before yet: that is not the end of what can be had.
        if (late > 500 || !(error as Error).message.includes('does not keep up')) throw error;
        await sleep(5);
      }
    }
  },
  filters: (control, n, { vnic, ip }) =>
    control.ask('filter.add', { vnic, text: `udp dst port ${2 * n + 1} and dst host ${ip}` }),
  vnics: (control, n, { device, address }) =>
    control.ask('vnic.open', { spec: { device, address: Number(address) + n, prefix: 24 } }),
};

let held: Control[] = [];
let silent: number[] = [];

/** As much of `what` as is given, over `connections` connections, which stay. */
async function take(args: {
  what: string;
  connections: number;
  extra?: Record<string, unknown>;
}): Promise<Taken> {
  const greed = GREED[args.what]!;
  const codes: string[] = [];
  let made = 0;
  for (let i = 0; i < args.connections; i++) {
    const control = await Control.open();
    held.push(control);
    while (codes.length === i && made < TRIES_MAX) {
      try {
        await greed(control, made, args.extra ?? {});
        made++;
      } catch (error) {
        codes.push(codeOf(error));
      }
    }
  }
  return { made, codes };
}

/** As many filters as one VNIC takes. */
async function takeFilters({ spec, ip }: { spec: string; ip: string }): Promise<Taken> {
  const control = await Control.open();
  held.push(control);
  const { info, fds } = await control.openVnic(spec);
  closeAll(fds);
  let made = 0;
  for (;;) {
    try {
      await GREED.filters!(control, made, { vnic: info.vnic, ip });
      made++;
    } catch (error) {
      return { made, codes: [codeOf(error)] };
    }
  }
}

function letGo(): void {
  for (const control of held) control.close();
  held = [];
}

/** Whether the other end has closed it. */
const isClosed = (fd: number): boolean => (pollOne(fd, POLLIN, 0) & POLLHUP) !== 0;

/** Open `count` connections that say nothing, all at once. */
function openSilent({ count }: { count: number }): void {
  for (let i = 0; i < count; i++) silent.push(connectUnix(socketPath, SOCK_SEQPACKET));
}

/** How many of these are still open; those that are not are let go. */
function countSilent(): number {
  const ended = silent.filter(isClosed);
  closeAll(ended);
  silent = silent.filter((fd) => !ended.includes(fd));
  return silent.length;
}

/** Ask without end and read no answer. Messages that were taken before the daemon had enough. */
async function neverRead({ op, args }: { op: string; args: object }): Promise<number> {
  const fd = connectUnix(socketPath, SOCK_SEQPACKET);
  setNonBlocking(fd);
  const send = (id: number, message: object): boolean =>
    sendMessage(fd, Buffer.from(JSON.stringify({ id, ...message }))) >= 0;
  send(1, { op: 'hello', protocol: 1 });
  let sent = 0;
  try {
    while (!isClosed(fd)) {
      if (send(sent + 2, { op, ...args })) sent++;
      else await sleep(1);
    }
  } catch {
    // The daemon closed it in between.
  }
  closeFd(fd);
  return sent;
}

/** Be told of every change in /app, and read nothing; until `letGo`. */
async function watchBlindly(): Promise<void> {
  const fd = connectUnix(socketPath, SOCK_SEQPACKET);
  const send = (message: object): void =>
    void sendMessage(fd, Buffer.from(JSON.stringify(message)));
  send({ id: 1, op: 'hello', protocol: 1 });
  for (let id = 2; id < 20; id++) send({ id, op: 'name.watch', path: '/app' });
  silent.push(fd);
  const control = await Control.open();
  held.push(control);
  const path = `/app/noise-${control.domain}`;
  for (let n = 0; n < 500; n++) {
    await control.ask('name.make', { path });
    await control.ask('name.remove', { path });
  }
}

/** As many requests as go through `connections` connections in `ms`. Answers. */
async function floodRequests(args: { connections: number; ms: number }): Promise<number> {
  const deadline = performance.now() + args.ms;
  let answered = 0;
  const one = async (): Promise<void> => {
    const control = await Control.open();
    held.push(control);
    const ask = async (n: number): Promise<void> => {
      while (performance.now() < deadline) {
        await control.codeOfAsking(n % 2 === 0 ? 'cap.list' : 'stats');
        answered++;
      }
    };
    await Promise.all(Array.from({ length: PIPELINE }, (_, n) => ask(n)));
  };
  await Promise.all(Array.from({ length: args.connections }, one));
  return answered;
}

/** Send descriptors to the daemon. What comes of it, each time. */
async function sendDescriptors({ times }: { times: number }): Promise<string[]> {
  const control = await Control.shared();
  const codes: string[] = [];
  for (let n = 0; n < times; n++) {
    const fd = connectUnix(socketPath, SOCK_SEQPACKET);
    try {
      sendMessage(fd, Buffer.from('{"id":1,"op":"hello","protocol":1}'), [0, 1, 2]);
      codes.push('ok');
    } catch (error) {
      codes.push(codeOf(error));
    }
    closeFd(fd);
  }
  await control.ask('list');
  return codes;
}

/** Sockets of VNICs on which half a message is sent, or requests whose answers are never read. */
async function stallDevice({ spec, half }: { spec: string; half: boolean }): Promise<number> {
  const control = await Control.open();
  held.push(control);
  const { fds } = await control.openVnic(spec);
  const socket = fds[1]!;
  silent.push(...fds);
  setNonBlocking(socket);
  const message = encodeMessage(REQ.GET_FEATURES);
  if (half) return sendMessage(socket, message.subarray(0, 5));
  let sent = 0;
  for (let refused = 0; refused < 200; ) {
    try {
      if (sendMessage(socket, message) >= 0) sent++;
      else {
        refused++;
        await sleep(1);
      }
    } catch {
      break;
    }
  }
  return sent;
}

export const exhaustActs = {
  take,
  takeFilters,
  letGo,
  openSilent,
  countSilent,
  neverRead,
  watchBlindly,
  floodRequests,
  sendDescriptors,
  stallDevice,
};
