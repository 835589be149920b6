/**
 * The embedded switch: three XDP programs, driven by maps. A new filter is a map entry where it can be one; others are
 * compiled into the programs (rules.ts), which are then exchanged while they run.
 *
 *               steer (interface S)                guard (switch end of a veth)
 *   wire ──► S ─┬─ flow of a direct VNIC ──► its XSK          application's XSK on the other end
 *               ├─ flow of a switched one ─► its veth ══► deliver ──► XSK
 *               └─ none: XDP_PASS, the kernel's         guard ◄══ what the application sends
 *                                                         ├─ not its own address: dropped and counted
 *                                                         ├─ for another switched VNIC on S ─► its veth
 *                                                         └─ else ─► S ──► wire
 *
 * One flow table says who owns what, in both directions: a frame may be received by the owner of its destination,
 * and sent by the owner of its source.
 *
 *   key    8 bytes   address be32 | port be16 | protocol u8 | scope u8
 *   value  8 bytes   id u32 | kind u8 | queues u8 | queue u16
 *
 * `id` indexes counts; `slotOf(id, pair)` indexes xsks and veths. A VNIC has 1 to 8 queues; of a direct one, `queue` is
 * the first on the interface. A switched one has a veth pair for each, and a flow stays on one (spread.ts).
 */
import { DROP_REASONS } from '../../../device/drops.ts';

/** VNICs of one interface at a time. */
export const VNICS_MAX = 256;
export const QUEUES_PER_VNIC_LOG2 = 3;
export const QUEUES_PER_VNIC_MAX = 1 << QUEUES_PER_VNIC_LOG2;
/** Where queue `pair` of VNIC `id` stands among the `xsks` and `veths`. */
export const slotOf = (id: number, pair: number): number => id * QUEUES_PER_VNIC_MAX + pair;
/** Where the interface itself stands among the `veths`. */
export const UPLINK = VNICS_MAX * QUEUES_PER_VNIC_MAX;

export const FLOW_KEY_BYTES = 8;
export const FLOW_VALUE_BYTES = 8;
/**
 * What a key covers: a port; `protocol`: every port of UDP or TCP, or with protocol 0 every packet; `portless`: what
 * shows no port, of one protocol. `present`: `port` is an id, and the VNIC has some flow at this address.
 */
export const SCOPE = { protocol: 0, port: 1, present: 2, portless: 3 } as const;
export const KIND = { direct: 0, switched: 1 } as const;

/** Where the packets of a flow go. */
export interface FlowTarget {
  readonly id: number;
  readonly kind: keyof typeof KIND;
  /** First receive queue of a direct VNIC, otherwise 0. */
  readonly queue: number;
  /** Queues that it has: of the interface, or veth pairs. */
  readonly queues: number;
}

export function flowValue(target: FlowTarget): Buffer {
  const value = Buffer.alloc(FLOW_VALUE_BYTES);
  value.writeUInt32LE(target.id, 0);
  value.writeUInt8(KIND[target.kind], 4);
  value.writeUInt8(target.queues, 5);
  value.writeUInt16LE(target.queue, 6);
  return value;
}

/** `counts`: per VNIC one entry {packets u64, bytes u64} for each drop reason, then received and sent. */
export const COUNT_RX = DROP_REASONS.length;
export const COUNT_TX = COUNT_RX + 1;
export const COUNTS_PER_VNIC = 16;
export const COUNT_WORDS = 2;

/** Descriptors of the maps. */
export interface SwitchMaps {
  readonly flows: number;
  /** XSKMAP by slot. */
  readonly xsks: number;
  /** DEVMAP by slot, and the interface at UPLINK. */
  readonly veths: number;
  readonly counts: number;
  /** See police.ts. */
  readonly limits: number;
}
