/**
 * Arrakis/P: Node's own `net`, `dgram` and what stands on them, on this domain's VNICs.
 *
 *   arrakis run --posix --vnic soft0,ip=10.77.0.2/24 -- app.js
 *   node --import arrakis/posix app.js
 *
 * Importing this module does it, once, for the main thread. The VNICs are those that `arrakis run` prepared; without any,
 * the one that ARRAKIS_VNIC specifies, or one of soft0 with the next free address.
 *
 * A process that the program starts inherits Node's options, and this import among them, but no VNIC: there it does
 * nothing, and the sockets are the kernel's. So it is in worker threads.
 */
import path from 'node:path';
import { isMainThread } from 'node:worker_threads';
import {
  ArrakisError,
  connect,
  type Domain,
  followKernel,
  monotonicMs,
  monotonicUs32,
  NetInterface,
  netTurn,
  type Vnic,
} from '../arrakis/index.ts';
import { Attachment } from './attach.ts';

/** In the environment of a program that is attached, and so of its children. */
const MARK = 'ARRAKIS_POSIX';

/** Go to sleep after so long without work: waking up costs about as much. */
const SPIN_US = 50;

async function openVnics(domain: Domain): Promise<Vnic[]> {
  const { prepared } = domain.info;
  const options = { offload: true };
  if (prepared.length === 0) return [await domain.openVnic(process.env.ARRAKIS_VNIC, options)];
  const vnics: Vnic[] = [];
  for (let i = 0; i < prepared.length; i++) vnics.push(await domain.openVnic(undefined, options));
  return vnics;
}

async function attach(vnic: Vnic): Promise<Attachment> {
  const net = new NetInterface(vnic);
  if (!vnic.ownsAddress) await followKernel(vnic, net);
  const attachment = new Attachment({
    net,
    turn: netTurn(net, monotonicMs, monotonicUs32),
    queue: vnic.queue,
    config: vnic,
    nowMs: monotonicMs,
    drive: (turn, timeoutMs) =>
      vnic.poll(turn, { timeoutMs, spinUs: SPIN_US, yieldIdle: true, ref: false }),
  });
  vnic.on('gone', (reason) => {
    process.emitWarning(`${vnic.name} is gone: ${reason}`, { code: 'ARK_GONE' });
    net.close();
    attachment.gone();
  });
  return attachment;
}

async function start(): Promise<void> {
  const name = path.basename(process.argv[1] ?? 'node').replace(/[^A-Za-z0-9_.@-]/g, '_');
  const domain = await connect({ name: name.slice(0, 32) });
  const attachments: Attachment[] = [];
  for (const vnic of await openVnics(domain)) attachments.push(await attach(vnic));
  process.env[MARK] = String(process.pid);
  process.on('exit', () => {
    for (const attachment of attachments) attachment.finish();
  });
}

/** A program cannot do anything about it, and would only show the stack of this file. */
function fail(error: unknown): never {
  if (!(error instanceof ArrakisError)) throw error;
  const hint = error.hint === undefined ? '' : `\n  ${error.hint}`;
  process.stderr.write(`arrakis: ${error.message}${hint}\n`);
  process.exit(1);
}

const isChild = process.env[MARK] !== undefined && process.env.ARRAKIS_FD === undefined;
if (isMainThread && !isChild) await start().catch(fail);
