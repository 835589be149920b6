/**
 * Filters that are no keys of the flow table, compiled into the programs. Steer and every guard have those of all
 * receivers, a guard also what its own VNIC sends by. Without such filters there is none of this code.
 *
 * Owners are apart, so it does not matter that the flow table is asked first.
 */
import { type Assembler, R0, R10 } from '../../../ebpf/assembler.ts';
import type { Filter, Range } from '../../../filter/boxes.ts';
import { emitFilters, emitRanges, FIELD } from '../../../filter/ebpf.ts';
import { type FlowTarget, flowValue } from './maps.ts';

/** A VNIC that receives by compiled filters. */
export interface Receiver {
  readonly target: FlowTarget;
  readonly filters: readonly Filter[];
  /** Addresses whose ARP it has. */
  readonly whole: readonly Range[];
}

/** By what a VNIC sends, besides its flows in the table or instead of them. */
export interface Sender {
  /** Of the frames that it sends: the source side is its own. */
  readonly filters: readonly Filter[];
  /** False when it has filters to send by: then `filters` is all. */
  readonly mirrorsFlows: boolean;
  /** Addresses that it may send ARP as, besides those in the table. */
  readonly whole: readonly Range[];
}

export const NO_RECEIVERS: readonly Receiver[] = [];
export const MIRRORS: Sender = { filters: [], mirrorsFlows: true, whole: [] };

/** Stack: a flow's value for a receiver that no key has. */
const VALUE = -112;

/** On to `found`, R0 at the flow value, when a receiver takes the packet whose FIELDs are on the stack. */
export function findReceiver(asm: Assembler, receivers: readonly Receiver[], found: string): void {
  choose(asm, receivers, found, ({ filters }, match) => emitFilters(asm, filters, match));
}

/** The same for ARP: whose is the address that stands in the field of destinations? */
export function findOwner(asm: Assembler, receivers: readonly Receiver[], found: string): void {
  choose(asm, receivers, found, ({ whole }, match) =>
    emitRanges(asm, FIELD.destination, whole, match),
  );
}

function choose(
  asm: Assembler,
  receivers: readonly Receiver[],
  found: string,
  test: (receiver: Receiver, match: string) => void,
): void {
  const miss = asm.fresh('miss');
  const matches: [Receiver, string][] = [];
  for (const receiver of receivers) {
    const match = asm.fresh('receiver');
    const start = asm.length;
    test(receiver, match);
    if (asm.length > start) matches.push([receiver, match]);
  }
  if (matches.length === 0) return;
  asm.ja(miss);
  for (const [{ target }, match] of matches) {
    const value = flowValue(target);
    asm.label(match).stImm(4, R10, VALUE, value.readInt32LE(0));
    asm.stImm(4, R10, VALUE + 4, value.readInt32LE(4));
    asm.mov(R0, R10).addImm(R0, VALUE).ja(found);
  }
  asm.label(miss);
}
