/** Attacks on rings and regions: the acts of attacker.app.ts for memory.test.ts. */
import { parseIpv4 } from '../../../src/base/address.ts';
import { udpFrame } from '../../support/frames.ts';
import { sleep, until } from '../../support/until.ts';
import { Control } from './control.ts';
import { startFlipping } from './flip.ts';
import { RawVnic } from './rings.ts';
import { searchShared, tryDoors } from './secret.ts';
import { BREAKING, directionOf, HARMLESS } from './virtio.ts';
import { RawXdp, XDP_REFUSED } from './xdp.ts';

const PORT = 5;
const WAIT_MS = 10_000;
const BATCH = 16;
const SESSIONS_MAX = 400;

interface Specs {
  /** The VNIC that is misused, and another of the attacker that sends to it or hears it. */
  readonly spec: string;
  readonly helper: string;
}

const control = await Control.shared();

/** A frame from one VNIC to the other. */
const frameTo = (
  from: { mac: number; address: number },
  to: { mac: number; address: number },
): Uint8Array =>
  udpFrame(
    { mac: from.mac, ip: from.address, port: PORT },
    { mac: to.mac, ip: to.address, port: PORT },
    Buffer.alloc(40, 'a'),
  );

/** Do one of BREAKING to a new VNIC. Why the device ended it. */
async function breakRing(args: Specs & { attack: string; ring: 'rx' | 'tx' }): Promise<string> {
  const vnic = await RawVnic.open(control, args.spec);
  const helper = args.ring === 'rx' ? await RawVnic.open(control, args.helper) : null;
  try {
    BREAKING[args.attack]!.run(vnic[args.ring], vnic, directionOf(args.ring));
    helper?.send([frameTo(helper.info, vnic.info)]);
    return await vnic.end();
  } finally {
    await vnic.close();
    await helper?.close();
  }
}

/** Do one of HARMLESS, then send a good frame. The drops, and how many frames went out. */
async function oddRing(args: Specs & { attack: string }): Promise<object> {
  const vnic = await RawVnic.open(control, args.spec);
  try {
    const to = { mac: 0x02_00_00_00_00_63, address: parseIpv4('10.77.0.99') };
    const frame = frameTo(vnic.info, to);
    HARMLESS[args.attack]!.run(vnic, frame);
    await until(() => vnic.tx.used === (vnic.tx.index & 0xffff), WAIT_MS, 'the chains are ended');
    vnic.send([frame]);
    await until(() => vnic.tx.used === (vnic.tx.index & 0xffff), WAIT_MS, 'the frame is sent');
    const { drops, txPackets, state } = await vnic.counters();
    return { drops, txPackets, state, chains: vnic.tx.index };
  } finally {
    await vnic.close();
  }
}

/**
 * Send (or, with `rx`, receive) by descriptors whose addresses another thread flips between a buffer and a place outside,
 * with the used ring scribbled over; each time the device ends the VNIC, open another. For `ms`.
 */
async function flipDescriptors(args: Specs & { ms: number; ring: 'rx' | 'tx' }): Promise<object> {
  const deadline = performance.now() + args.ms;
  const reasons: Record<string, number> = {};
  let sessions = 0;
  while (performance.now() < deadline && sessions < SESSIONS_MAX) {
    sessions++;
    const vnic = await RawVnic.open(control, args.spec);
    const helper = args.ring === 'rx' ? await RawVnic.open(control, args.helper) : null;
    const ring = vnic[args.ring];
    const frame = frameTo(vnic.info, vnic.info);
    for (let slot = 0; slot < BATCH; slot++) {
      ring.describe(slot, {
        ...vnic.place(slot, frame),
        length: 200,
        flags: directionOf(args.ring),
      });
    }
    const words = Array.from({ length: BATCH }, (_, slot) => ({
      at: ring.addressWord(slot),
      one: vnic.slot(slot),
      other: 2 * vnic.regionBytes,
    }));
    const stop = startFlipping({
      region: vnic.regionFd,
      bytes: vnic.regionBytes,
      words,
      scribble: null,
    });
    const ended = (): string | undefined =>
      control.told.find((t) => t.name === 'vnic.gone' && t.body.vnic === vnic.info.vnic)?.body
        .reason as string | undefined;
    while (ended() === undefined && performance.now() < deadline) {
      for (let slot = 0; slot < BATCH; slot++) ring.offer(slot);
      ring.show();
      ring.scribble(performance.now());
      helper?.send(new Array(BATCH).fill(frameTo(helper.info, vnic.info)));
      await sleep(1);
    }
    const reason = ended() ?? 'the time was over';
    reasons[reason] = (reasons[reason] ?? 0) + 1;
    await stop();
    await vnic.close();
    await helper?.close();
  }
  return { sessions, reasons };
}

/** Send frames whose source address and MAC another thread flips to those of `victim`. What the device counted of it. */
async function flipFrames(
  args: Specs & { ms: number; victim: { mac: number; address: number } },
): Promise<object> {
  const vnic = await RawVnic.open(control, args.spec);
  const helper = await RawVnic.open(control, args.helper);
  const { rx } = helper;
  for (let slot = 0; slot < rx.size; slot++) {
    rx.describe(slot, { lo: helper.slot(slot), length: 2048, flags: directionOf('rx') });
    rx.offer(slot);
  }
  rx.show();
  const frame = frameTo(vnic.info, helper.info);
  const lie = frameTo(args.victim, helper.info);
  // Buffers begin on a word, and the frame 12 bytes behind: source MAC at 6, source address at 26 of it.
  const words: { at: number; one: number; other: number }[] = [];
  const wordOf = (bytes: Uint8Array, at: number): number => Buffer.from(bytes).readUInt32LE(at);
  for (let slot = 0; slot < BATCH; slot++) {
    for (const at of [4, 8, 24, 28]) {
      words.push({
        at: (vnic.slot(slot) + 12 + at) / 4,
        one: wordOf(frame, at),
        other: wordOf(lie, at),
      });
    }
    vnic.tx.describe(slot, vnic.place(slot, frame));
  }
  const stop = startFlipping({
    region: vnic.regionFd,
    bytes: vnic.regionBytes,
    words,
    scribble: null,
  });
  const deadline = performance.now() + args.ms;
  let heard = 0;
  let lies = 0;
  while (performance.now() < deadline) {
    for (let slot = 0; slot < BATCH; slot++) vnic.tx.offer(slot);
    vnic.tx.show();
    const before = vnic.tx.index;
    await until(() => ((before - vnic.tx.used) & 0xffff) === 0, WAIT_MS, 'they are sent');
    for (; heard % 65536 !== rx.used; heard++) {
      const at = helper.slot(heard % rx.size) + 12;
      const bytes = Buffer.from(helper.u8.slice(at, at + frame.length));
      if (bytes.readUIntBE(6, 6) !== vnic.info.mac || bytes.readUInt32BE(26) !== vnic.info.address)
        lies++;
      rx.offer(heard % rx.size);
    }
    rx.show();
  }
  await stop();
  const { drops, txPackets } = await vnic.counters();
  await vnic.close();
  await helper.close();
  return { sent: vnic.tx.index, txPackets, drops, heard, lies };
}

/** Descriptors that the kernel refuses, then rings whose indices make no sense. What it counted. */
async function breakXdp(args: Specs): Promise<object> {
  const vnic = await RawXdp.open(control, args.spec);
  const refused: Record<string, number> = {};
  for (const [name, make] of Object.entries(XDP_REFUSED)) {
    const before = vnic.statistics().txInvalidDescs!;
    vnic.send([make(vnic.grant)]);
    refused[name] = vnic.statistics().txInvalidDescs! - before;
  }
  const { regionBytes, frameSize } = vnic.grant;
  const helper = await RawXdp.open(control, args.helper);
  // Places to receive into that are not ours are passed over: the frame is put into the one that is.
  const good = 4 * frameSize;
  vnic.offer([{ lo: regionBytes }, { lo: 2 * regionBytes }, { lo: 0, hi: 1 }, { lo: good }]);
  const frame = frameTo(helper.info, vnic.info);
  helper.u8.set(frame, frameSize);
  helper.send([{ lo: frameSize, length: frame.length }]);
  const received: number[] = [];
  await until(() => received.push(...vnic.received()) > 0, WAIT_MS, 'the frame comes');
  for (const jump of [vnic.tx.mask + 2, 0x4000_0000, -1, -0x4000_0000]) {
    for (const ring of [vnic.tx, vnic.fill]) {
      ring.local = (ring.local + jump) | 0;
      ring.publish();
      vnic.poke();
    }
    helper.send([{ lo: frameSize, length: frame.length }]);
  }
  await helper.close();
  await vnic.close();
  return { refused, received, good };
}

/** Frames in AF_XDP buffers that change while the kernel takes them; see `flipFrames`. */
async function flipXdpFrames(
  args: Specs & { ms: number; victim: { mac: number; address: number } },
): Promise<object> {
  const { info, fds } = await control.openVnic(args.spec);
  const [region] = fds as [number];
  const vnic = await RawXdp.adopt(control, info, fds as [number, number]);
  const frame = frameTo(info, { mac: 0x02_00_00_00_00_63, address: info.address + 60 });
  const lie = frameTo(args.victim, { mac: 0x02_00_00_00_00_63, address: info.address + 60 });
  const { frameSize, regionBytes } = vnic.grant;
  const words: { at: number; one: number; other: number }[] = [];
  const wordOf = (bytes: Uint8Array, at: number): number => Buffer.from(bytes).readUInt32LE(at);
  for (let slot = 0; slot < BATCH; slot++) {
    vnic.u8.set(frame, slot * frameSize);
    for (const at of [4, 8, 24, 28]) {
      words.push({
        at: (slot * frameSize + at) / 4,
        one: wordOf(frame, at),
        other: wordOf(lie, at),
      });
    }
  }
  const stop = startFlipping({ region, bytes: regionBytes, words, scribble: null });
  const deadline = performance.now() + args.ms;
  let sent = 0;
  while (performance.now() < deadline) {
    const all = Array.from({ length: BATCH }, (_, slot) => ({
      lo: slot * frameSize,
      length: frame.length,
    }));
    vnic.send(all);
    sent += all.length;
    await sleep(1);
  }
  await stop();
  await sleep(100);
  const { vnics } = (await control.channel.request('stats', {})).reply;
  const { counters } = vnics.find(({ vnic: id }) => id === info.vnic)!;
  await vnic.close();
  return { sent, ...counters };
}

/** Everything that this process shares while it has a VNIC, and every door of others. */
async function lookAround(
  args: Specs & { secret: string; pids: number[]; directory: string },
): Promise<object> {
  const { fds, info } = await control.openVnic(args.spec);
  const vnic =
    info.driver === 'af-xdp' ? RawXdp.adopt(control, info, fds as [number, number]) : null;
  const raw = vnic === null ? await RawVnic.adopt(control, info, fds as [number, number]) : null;
  const secret = Buffer.from(args.secret, 'hex');
  const searched = searchShared(secret);
  // The search finds what is there: the same with the secret in our own region.
  (vnic ?? raw)!.u8.set(secret, 8192);
  const planted = searchShared(secret).found;
  const opened = tryDoors(args.pids, args.directory);
  await (vnic ?? raw)!.close();
  return { ...searched, planted, opened };
}

export const memoryActs = {
  breakRing,
  oddRing,
  flipDescriptors,
  flipFrames,
  breakXdp,
  flipXdpFrames,
  lookAround,
};
