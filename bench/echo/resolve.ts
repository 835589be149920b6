/** One ARP question, asked and answered synchronously: a generator has no stack to do it for it. */
import { type Ipv4, MAC_BROADCAST, type Mac, macHi, macLo, macOf } from '../../src/base/address.ts';
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import * as arp from '../../src/wire/arp.ts';
import * as ethernet from '../../src/wire/ethernet.ts';

const BATCH = 16;
const ASK_EVERY_MS = 50;
const FRAME_LEN = 60;

/** MAC of `target` as seen through `queue`, or null after `timeoutMs`. Frames of others are dropped meanwhile. */
export function resolveMac(
  queue: NicQueue,
  own: { mac: Mac; address: Ipv4 },
  target: Ipv4,
  timeoutMs: number,
): Mac | null {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  const end = performance.now() + timeoutMs;
  let askAt = 0;
  while (performance.now() < end) {
    if (performance.now() >= askAt) {
      ask(queue, own, target);
      askAt = performance.now() + ASK_EVERY_MS;
    }
    queue.reclaim(BATCH);
    const count = queue.rxBatch(frames, lengths, BATCH);
    let found: Mac | null = null;
    for (let i = 0; i < count; i++) {
      found ??= answerIn(queue.memory.view, frames[i]!, lengths[i]!, target);
      queue.free(frames[i]!);
    }
    if (found !== null) return found;
  }
  return null;
}

function ask(queue: NicQueue, own: { mac: Mac; address: Ipv4 }, target: Ipv4): void {
  const frame = queue.alloc();
  if (frame === NO_FRAME) return;
  const { view, u8 } = queue.memory;
  u8.fill(0, frame, frame + FRAME_LEN);
  ethernet.setDst(view, frame, macHi(MAC_BROADCAST), macLo(MAC_BROADCAST) | 0);
  ethernet.setSrc(view, frame, macHi(own.mac), macLo(own.mac) | 0);
  ethernet.setType(view, frame, ethernet.TYPE_ARP);
  const at = frame + ethernet.HEADER_LEN;
  arp.emit(view, at, arp.OP_REQUEST);
  arp.setSender(view, at, macHi(own.mac), macLo(own.mac) | 0, own.address | 0);
  arp.setTarget(view, at, 0, 0, target | 0);
  if (queue.txBatch(Uint32Array.of(frame), Uint16Array.of(FRAME_LEN), 1) === 0) queue.free(frame);
  queue.kick();
}

function answerIn(view: DataView, frame: number, length: number, target: Ipv4): Mac | null {
  const end = frame + length;
  const at = frame + ethernet.HEADER_LEN;
  if (ethernet.check(view, frame, end) < 0 || ethernet.type(view, frame) !== ethernet.TYPE_ARP) {
    return null;
  }
  if (arp.check(view, at, end) < 0 || arp.operation(view, at) !== arp.OP_REPLY) return null;
  if (arp.senderIp(view, at) !== (target | 0)) return null;
  return macOf(arp.senderMacHi(view, at), arp.senderMacLo(view, at) >>> 0);
}
