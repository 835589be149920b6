/** Frames that lie, sent by the honest queue of an honest VNIC: acts for spoof.test.ts and flood.test.ts. */

import { openPair, openSession, type QueueSession } from '../../../src/arrakis/pairs.ts';
import type { VnicInfo } from '../../../src/control/protocol.ts';
import { type NicQueue, NO_FRAME } from '../../../src/device/nic.ts';
import { setAffinity } from '../../../src/ffi/process.ts';
import { receiveAll, sendBytes } from '../../interop/af-xdp.harness.ts';
import { sleep } from '../../support/until.ts';
import { codeOf } from '../actor.ts';
import { Control } from './control.ts';

const BATCH = 64;
const NAP_MS = 1;

interface Open {
  readonly control: Control;
  readonly info: VnicInfo;
  readonly session: QueueSession;
  readonly queue: NicQueue;
  heard: number;
}

const open = new Map<number, Open>();
let flooding = false;

/** Open a VNIC over a connection of its own. It keeps its queue, whatever becomes of the VNIC. */
async function openOwn({ spec }: { spec: string }): Promise<object> {
  const control = await Control.open();
  const { info, fds } = await control.openVnic(spec);
  const session = openSession(info, fds);
  const queue = openPair(session.pairs[0]!);
  open.set(info.vnic, { control, info, session, queue, heard: 0 });
  const { vnic, mac, address } = info;
  return { vnic, mac, address, domain: control.domain };
}

/** Send each of `frames` (hex) `times` times. */
async function sendFrames(args: { vnic: number; frames: string[]; times: number }): Promise<void> {
  const { queue } = open.get(args.vnic)!;
  for (const text of args.frames) {
    const bytes = Buffer.from(text, 'hex');
    for (let sent = 0; sent < args.times; ) {
      if (sendBytes(queue, bytes)) sent++;
      else await sleep(NAP_MS);
    }
  }
  // Copy mode sends when it is called.
  for (let i = 0; i < 50; i++) {
    queue.reclaim(BATCH);
    queue.kick();
    await sleep(NAP_MS);
  }
}

/** Frames that a VNIC has received, all told. */
function heard({ vnic }: { vnic: number }): number {
  const entry = open.get(vnic)!;
  for (let got = 1; got > 0; ) {
    got = receiveAll(entry.queue).length;
    entry.heard += got;
  }
  return entry.heard;
}

/** What comes of `op` asked by the domain of a VNIC. */
const askFor = ({ vnic, op, args }: { vnic: number; op: string; args: object }): Promise<string> =>
  open.get(vnic)!.control.codeOfAsking(op, args);

/** Send these frames, as many as the queue takes, until `stopFlood`. It naps while the queue is full. */
function flood(args: { vnic: number; frames: string[] }): void {
  const { queue } = open.get(args.vnic)!;
  const bytes = args.frames.map((text) => Buffer.from(text, 'hex'));
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  flooding = true;
  const turn = (): void => {
    if (!flooding) return;
    queue.reclaim(4 * BATCH);
    let ready = 0;
    for (; ready < BATCH; ready++) {
      const frame = queue.alloc();
      if (frame === NO_FRAME) break;
      const next = bytes[ready % bytes.length]!;
      queue.memory.u8.set(next, frame);
      frames[ready] = frame;
      lengths[ready] = next.length;
    }
    const taken = queue.txBatch(frames, lengths, ready);
    for (let i = taken; i < ready; i++) queue.free(frames[i]!);
    queue.kick();
    if (taken < BATCH) setTimeout(turn, NAP_MS);
    else setImmediate(turn);
  };
  turn();
}

function stopFlood(): void {
  flooding = false;
}

/** Whether the device would still serve the sockets that it had. */
function stillServed({ vnic }: { vnic: number }): string {
  const { queue } = open.get(vnic)!;
  try {
    queue.arm();
    return String(queue.state);
  } catch (error) {
    return codeOf(error);
  }
}

const pin = ({ cpu }: { cpu: number }): void => setAffinity([cpu]);

export const frameActs = { pin, openOwn, sendFrames, heard, askFor, flood, stopFlood, stillServed };
