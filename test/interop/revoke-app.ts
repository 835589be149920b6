/**
 * An application that is told to stop. It says its domain, waits until it was given what a VNIC takes, opens one by
 * spec, then receives and sends without end, and says every 20 ms how much.
 *
 *   revoke-app.js friendly SPEC PEER    by libarrakis: what it does when the VNIC goes is up to the library
 *   revoke-app.js defiant SPEC PEER     keeps the queue that it had and goes on with it, whatever it is told
 *
 * PEER is `MAC,IP`, in numbers. On 'leave' (standard input) it closes its control channel; on 'child' it starts a process
 * that has its sockets too.
 */
import { spawn } from 'node:child_process';
import {
  ControlChannel,
  connect,
  openControlSocket,
  parseVnicSpec,
} from '../../src/arrakis/index.ts';
import { openPair, openSession } from '../../src/arrakis/pairs.ts';
import { formatIpv4 } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { udpFrame } from '../support/frames.ts';
import { receiveAll, sendBytes } from './af-xdp.harness.ts';

const SAY_MS = 20;
const PORT = 7;
export const PEER_PORT = 9000;

interface Opened {
  readonly queue: NicQueue;
  readonly mac: number;
  readonly address: number;
  /** Sockets of the VNIC. */
  readonly fds: readonly number[];
}

const [role = '', specText = '', peerText = ''] = process.argv.slice(2);
const spec = parseVnicSpec(specText);
const [peerMac = 0, peerIp = 0] = peerText.split(',').map(Number);
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const commands = new Map<string, () => void>();

/** The last of what a VNIC takes is the rate. */
const isLast = (kind: string): boolean => kind === 'rate';

async function openFriendly(): Promise<Opened> {
  const domain = await connect({ name: 'friendly' });
  const equipped = new Promise<void>((resolve) => {
    domain.on('cap-granted', ({ kind }) => isLast(kind) && resolve());
  });
  domain.on('cap-revoking', (caps, graceMs) => say(`revoking ${caps.length} in ${graceMs}`));
  domain.on('cap-revoked', (caps) => say(`revoked ${caps.length}`));
  say(`domain ${domain.info.domain}`);
  await equipped;
  const vnic = await domain.openVnic(spec);
  vnic.on('gone', (reason) => say(`gone ${reason}`));
  return { queue: vnic.queue, mac: vnic.mac, address: vnic.address, fds: [] };
}

async function openDefiant(): Promise<Opened> {
  let granted = (): void => {};
  const equipped = new Promise<void>((resolve) => {
    granted = resolve;
  });
  const channel = new ControlChannel(openControlSocket(), {
    onEvent: (name, body) => {
      if (name !== 'cap.granted') return;
      if (isLast((body as { capability: { kind: string } }).capability.kind)) granted();
    },
    onClose: () => {},
  });
  const { reply } = await channel.request('hello', { protocol: 1, name: 'defiant' });
  say(`domain ${reply.domain}`);
  await equipped;
  const opened = await channel.request('vnic.open', { spec });
  const { mac, address } = opened.reply;
  const session = openSession(opened.reply, opened.fds);
  const queue = openPair(session.pairs[0]!);
  commands.set('leave', () => channel.close());
  return { queue, mac, address, fds: opened.fds.slice(1) };
}

// A domain that only waits for an event does not keep its process alive.
const waiting = setInterval(() => {}, 1000);
const opened = await (role === 'friendly' ? openFriendly() : openDefiant());
clearInterval(waiting);
commands.set('child', () => {
  const stdio = ['ignore', 'inherit', 'inherit', ...opened.fds] as ('ignore' | number)[];
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio });
  say(`child ${child.pid}`);
  child.on('exit', (_code, signal) => say(`child ended by ${signal}`));
});
process.stdin.setEncoding('utf8').on('data', (text: string) => {
  for (const line of text.split('\n')) commands.get(line)?.();
});
process.stdin.on('end', () => process.exit(0));

const { queue, mac, address } = opened;
const frame = udpFrame(
  { mac, ip: address, port: PORT },
  { mac: peerMac, ip: peerIp, port: PEER_PORT },
  Buffer.from('on and on'),
);
let received = 0;
let sent = 0;
setInterval(() => say(`received ${received} sent ${sent}`), SAY_MS);
say(`open ${formatIpv4(address)} ${mac}`);

function turn(): void {
  received += receiveAll(queue).length;
  if (sendBytes(queue, frame)) sent++;
  setTimeout(turn, 1);
}
turn();
