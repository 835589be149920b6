/** A DHCP server for tests that does what it is told, on the frames of a client's queue (RFC 2131). */
import { OPTION } from '../../src/net/dhcp/message.ts';
import * as udp from '../../src/wire/udp.ts';
import { viewOfBytes } from './frames.ts';

const PAYLOAD_AT = 42;

/** What a client sent. */
export interface Asked {
  readonly type: number;
  readonly xid: number;
  readonly clientAddress: number;
  readonly isBroadcast: boolean;
  readonly options: ReadonlyMap<number, Uint8Array>;
  /** Its destination address on the wire. */
  readonly to: number;
}

/** The DHCP requests among the frames that a client sent. */
export function askedIn(frames: readonly Uint8Array[]): Asked[] {
  return frames.flatMap((frame) => {
    const view = viewOfBytes(frame);
    const isUdp = view.getUint16(12) === 0x0800 && frame[23] === 17;
    if (!isUdp || udp.dstPort(view, 34) !== 67) return [];
    const options = new Map<number, Uint8Array>();
    for (let at = PAYLOAD_AT + 240; frame[at] !== OPTION.end; at += 2 + frame[at + 1]!) {
      options.set(frame[at]!, frame.slice(at + 2, at + 2 + frame[at + 1]!));
    }
    return [
      {
        type: options.get(OPTION.type)![0]!,
        xid: view.getUint32(PAYLOAD_AT + 4),
        clientAddress: view.getUint32(PAYLOAD_AT + 12),
        isBroadcast: view.getUint16(PAYLOAD_AT + 10) !== 0,
        options,
        to: view.getUint32(30),
      },
    ];
  });
}

/** The payload of an answer of `type` to transaction `xid` of the client with `mac`. */
export function answer(
  type: number,
  xid: number,
  mac: number,
  address: number,
  options: readonly (readonly [number, readonly number[]])[],
): Uint8Array {
  const all = [[OPTION.type, [type]] as const, ...options];
  const bytes = new Uint8Array(241 + all.reduce((sum, [, value]) => sum + 2 + value.length, 0));
  const view = viewOfBytes(bytes);
  bytes.set([2, 1, 6, 0]);
  view.setUint32(4, xid);
  view.setUint32(16, address);
  view.setUint16(28, Math.floor(mac / 2 ** 32));
  view.setUint32(30, mac % 2 ** 32);
  view.setUint32(236, 0x63825363);
  let at = 240;
  for (const [code, value] of all) {
    bytes.set([code, value.length, ...value], at);
    at += 2 + value.length;
  }
  bytes[at] = OPTION.end;
  return bytes;
}
