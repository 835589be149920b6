/**
 * Limits of a VNIC, and of each of its queues, in eBPF: the generic cell rate algorithm (ITU-T I.371), as softnic/rate.ts has it. A frame that comes
 * more than BURST_US before its theoretical arrival time is dropped; any other moves that time on by its own.
 *
 *   limits  array of {arrivalNs u64, nsPerByte u64, nsPerFrame u64}, by `limitOf(id, direction)`, then by
 *           `queueLimitOf(slot, direction)`
 *
 * - `nsPerByte` has FRACTION_BITS after the point. A frame takes the longer of its time by bytes and `nsPerFrame`.
 * - All zero is no limit: nothing is read but these two, no clock.
 * - Frames of one VNIC may come on several CPUs. Who loses the exchange to another has that one's time, which is not
 *   before now, and adds its own: every frame that passes is paid for.
 */
import { BURST_US, costsUs, type Direction, type RateLimit } from '../../../device/rate.ts';
import { type Assembler, R0, R1, R2, R3, R4, R10, type Register } from '../../../ebpf/assembler.ts';
import { DATA, DATA_END } from './common.ts';
import { QUEUES_PER_VNIC_MAX, type SwitchMaps, VNICS_MAX } from './maps.ts';

export const LIMIT_BYTES = 24;
const QUEUE_LIMITS = 2 * VNICS_MAX;
export const LIMITS_MAX = QUEUE_LIMITS + 2 * VNICS_MAX * QUEUES_PER_VNIC_MAX;
const ARRIVAL = 0;
const PER_BYTE = 8;
const PER_FRAME = 16;
/** A frame of 64 KiB at the lowest rate still fits in 64 bits; at the highest, a byte's time is right to 1 in 8000. */
const FRACTION_BITS = 20;
const NS_PER_US = 1000;
const BURST_NS = BURST_US * NS_PER_US;

const DIRECTION = { receive: 0, send: 1 } as const satisfies Record<Direction, number>;

// Stack, below what the other programs use.
const LIMIT_KEY = -28;
const ENTRY = -40;
const COST = -48;

/** Where the limit of VNIC `id` stands in the map. */
export const limitOf = (id: number, direction: Direction): number => 2 * id + DIRECTION[direction];

/** Where that of one queue stands, by its slot. */
export const queueLimitOf = (slot: number, direction: Direction): number =>
  QUEUE_LIMITS + 2 * slot + DIRECTION[direction];

/** Put `limit` into an entry, whose arrival time stays: changing a limit gives nobody a burst. */
export function writeLimit(entry: Buffer, limit: RateLimit): void {
  const { perByte, perFrame } = costsUs(limit);
  const fixed = Math.round(perByte * NS_PER_US * 2 ** FRACTION_BITS);
  entry.writeBigUInt64LE(BigInt(fixed), PER_BYTE);
  entry.writeBigUInt64LE(BigInt(Math.round(perFrame * NS_PER_US)), PER_FRAME);
}

/**
 * Go on to `over` when this frame is beyond the limit of VNIC `id` in `direction`; otherwise charge it. Destroys R0 to
 * R5; only a register that calls keep may hold `id`.
 */
export function police(
  asm: Assembler,
  maps: SwitchMaps,
  id: Register | { id: number },
  direction: Direction,
  over: string,
): void {
  if (typeof id === 'number') {
    asm.mov(R1, id).lshImm(R1, 1).addImm(R1, DIRECTION[direction]).stx(4, R10, LIMIT_KEY, R1);
  } else {
    asm.stImm(4, R10, LIMIT_KEY, limitOf(id.id, direction));
  }
  charge(asm, maps, over);
}

/**
 * The same for the limit of one queue: that with `slot`, or whose slot is on the stack at `at`. Call it before `police`:
 * what a queue loses does not count against its VNIC.
 */
export function policeQueue(
  asm: Assembler,
  maps: SwitchMaps,
  queue: { slot: number } | { at: number },
  direction: Direction,
  over: string,
): void {
  if ('at' in queue) {
    asm.ldx(4, R1, R10, queue.at).lshImm(R1, 1).addImm(R1, queueLimitOf(0, direction));
    asm.stx(4, R10, LIMIT_KEY, R1);
  } else {
    asm.stImm(4, R10, LIMIT_KEY, queueLimitOf(queue.slot, direction));
  }
  charge(asm, maps, over);
}

/** On to `over` when this frame is beyond the limit whose key is on the stack. */
function charge(asm: Assembler, maps: SwitchMaps, over: string): void {
  const done = asm.fresh('policed');
  const later = asm.fresh('later');
  const longer = asm.fresh('longer');
  asm.ldMapFd(R1, maps.limits, 'limits').mov(R2, R10).addImm(R2, LIMIT_KEY);
  asm.call('map_lookup_elem').jeqImm(R0, 0, done);
  asm.ldx(8, R1, R0, PER_BYTE).ldx(8, R2, R0, PER_FRAME);
  asm.mov(R3, R1).add(R3, R2).jeqImm(R3, 0, done);
  // R1 = the frame's time.
  asm.mov(R3, DATA_END).sub(R3, DATA).mul(R1, R3).rshImm(R1, FRACTION_BITS);
  asm.jgt(R1, R2, longer).mov(R1, R2).label(longer);
  asm.stx(8, R10, ENTRY, R0).stx(8, R10, COST, R1);
  asm.call('ktime_get_ns').ldx(8, R2, R10, ENTRY).ldx(8, R1, R10, COST);
  asm.ldx(8, R3, R2, ARRIVAL).mov(R4, R0).addImm(R4, BURST_NS).jgt(R3, R4, over);
  // R4 = max(arrival, now) + the frame's time.
  asm.mov(R4, R3).jgt(R4, R0, later).mov(R4, R0).label(later).add(R4, R1);
  asm.mov(R0, R3).atomicCmpxchg(R2, ARRIVAL, R4).sub(R0, R3).jeqImm(R0, 0, done);
  asm.atomicAdd(R2, ARRIVAL, R1);
  asm.label(done);
}
