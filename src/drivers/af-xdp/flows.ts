/**
 * The flow table of one interface: who receives what, as keys of the `flows` map (programs/) where a filter can be keys.
 *
 * - A box with one destination address and no word on the source is keys: one for the whole address, a protocol, all
 *   ports of one, or each port of a range. Every other box is left to the programs (rules.ts there).
 * - A change is checked whole, then made: new keys are added before old ones go, so that a flow which stays never
 *   misses a packet; when it fails half-way, what was added is taken back.
 */
import { assert } from '../../base/assert.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { mapDelete, mapKeys, mapUpdate } from '../../ffi/bpf.ts';
import {
  type Box,
  DIM,
  type Filter,
  hasPorts,
  isWhole,
  overlaps,
  type Range,
  wholeDestinations,
} from '../../filter/boxes.ts';
import { formatFilter } from '../../filter/format.ts';
import { FLOW_KEY_BYTES, type FlowTarget, flowValue, SCOPE } from './programs/index.ts';

/** Keys that the filters of one VNIC may have. What is beyond is compiled. */
export const FLOW_KEYS_PER_VNIC_MAX = 1024;
/** Keys of all VNICs of an interface. */
export const FLOW_KEYS_MAX = 32768;

/** Whose flows they are, and where they go. */
export interface FlowOwner extends FlowTarget {
  readonly name: string;
}

/** What filters to receive by come to. */
export interface FlowPlan {
  readonly owner: FlowOwner;
  readonly filters: readonly Filter[];
  /** By their hexadecimal form. */
  readonly keys: ReadonlyMap<string, Buffer>;
  /** What no key says; null: nothing. */
  readonly compiled: Filter | null;
  /** Addresses that the VNIC has whole, with ARP, and no key says it. */
  readonly whole: readonly Range[];
}

function flowKey(address: number, port: number, protocol: number, scope: number): Buffer {
  const key = Buffer.alloc(FLOW_KEY_BYTES);
  key.writeUInt32BE(address, 0);
  key.writeUInt16BE(port, 4);
  key.writeUInt8(protocol, 6);
  key.writeUInt8(scope, 7);
  return key;
}

const wholeKey = (address: number): Buffer => flowKey(address, 0, 0, SCOPE.protocol);

function presentKey(address: number, id: number): Buffer {
  const key = flowKey(address, 0, 0, SCOPE.present);
  // Only the guard program of VNIC `id` makes this key, from an immediate: machine order.
  key.writeUInt16LE(id, 4);
  return key;
}

/** The flows of `box` as keys; null when it is no such box, or more than `most`. */
function keysOfBox(box: Box, most: number): Buffer[] | null {
  const address = box.first[DIM.destination]!;
  const protocol = box.first[DIM.protocol]!;
  if (box.last[DIM.destination] !== address || !isWhole(box, DIM.source)) return null;
  if (isWhole(box, DIM.protocol) && isWhole(box, DIM.ports)) return [wholeKey(address)];
  if (box.last[DIM.protocol] !== protocol) return null;
  const keys: Buffer[] = [];
  if (box.first[DIM.ports] === 0) keys.push(flowKey(address, 0, protocol, SCOPE.portless));
  if (box.last[DIM.ports] === 0 || !hasPorts(protocol)) return keys;
  if (!isWhole(box, DIM.sourcePort)) return null;
  if (isWhole(box, DIM.destinationPort)) {
    return [...keys, flowKey(address, 0, protocol, SCOPE.protocol)];
  }
  const [first, last] = [box.first[DIM.destinationPort]!, box.last[DIM.destinationPort]!];
  if (last - first >= most) return null;
  for (let port = first; port <= last; port++) {
    keys.push(flowKey(address, port, protocol, SCOPE.port));
  }
  return keys;
}

/** What `filters` come to for `owner`. Changes nothing. */
export function planFlows(owner: FlowOwner, filters: readonly Filter[]): FlowPlan {
  const keys = new Map<string, Buffer>();
  const present = new Map<string, Buffer>();
  const compiled: Box[] = [];
  // What filters share is made once for each: their repetition costs time too.
  let budget = 2 * FLOW_KEYS_PER_VNIC_MAX;
  for (const box of filters.flatMap(({ boxes }) => boxes)) {
    const flows = keysOfBox(box, Math.min(budget, FLOW_KEYS_PER_VNIC_MAX));
    budget -= flows?.length ?? 0;
    const added = flows?.filter((key) => !keys.has(key.toString('hex')));
    if (added === undefined || keys.size + added.length > FLOW_KEYS_PER_VNIC_MAX) {
      compiled.push(box);
      continue;
    }
    for (const key of added) keys.set(key.toString('hex'), key);
    // Not counted among the flows: it only tells a wrong port from a wrong address.
    const mark = presentKey(box.first[DIM.destination]!, owner.id);
    present.set(mark.toString('hex'), mark);
  }
  const isListed = ([first, last]: Range): boolean => {
    if (last - first >= FLOW_KEYS_PER_VNIC_MAX) return false;
    for (let a = first; a <= last; a++) if (!keys.has(wholeKey(a).toString('hex'))) return false;
    return true;
  };
  return {
    owner,
    filters: [...filters],
    keys: new Map([...keys, ...present]),
    compiled: compiled.length === 0 ? null : { boxes: compiled },
    whole: wholeDestinations(filters).filter((range) => !isListed(range)),
  };
}

export class FlowTable {
  readonly #map: number;
  readonly #owned = new Map<number, FlowPlan>();

  /** `map`: descriptor of the `flows` map; stays the caller's. */
  constructor(map: number) {
    this.#map = map;
  }

  /** What each VNIC has now. */
  plans(): IterableIterator<FlowPlan> {
    return this.#owned.values();
  }

  get(id: number): FlowPlan | undefined {
    return this.#owned.get(id);
  }

  /** What `filters` come to. Changes nothing. ARK_IN_USE when another VNIC has some of it. */
  plan(owner: FlowOwner, filters: readonly Filter[]): FlowPlan {
    this.#refuseTaken(owner, filters);
    return planFlows(owner, filters);
  }

  /**
   * Give the owner of `plan` exactly these flows. `exchange` puts the programs in place that go with them: while it
   * runs, the keys of before and after are both there. ARK_LIMIT when the keys are too many.
   */
  set(plan: FlowPlan, exchange: () => void): void {
    const { id } = plan.owner;
    const before: ReadonlyMap<string, Buffer> = this.#owned.get(id)?.keys ?? new Map();
    const added = [...plan.keys].flatMap(([text, key]) => (before.has(text) ? [] : [key]));
    this.#insert(added, flowValue(plan.owner));
    try {
      exchange();
    } catch (error) {
      for (const key of added) mapDelete(this.#map, key);
      throw error;
    }
    for (const [text, key] of before) if (!plan.keys.has(text)) mapDelete(this.#map, key);
    this.#owned.set(id, plan);
  }

  /** Go on with flows that the map has from the daemon before; what is missing there is added. */
  adopt(plan: FlowPlan): void {
    const value = flowValue(plan.owner);
    for (const key of plan.keys.values()) mapUpdate(this.#map, key, value);
    this.#owned.set(plan.owner.id, plan);
  }

  /** Remove the keys of the map that no VNIC has. */
  settle(): void {
    const known = new Set([...this.#owned.values()].flatMap(({ keys }) => [...keys.keys()]));
    for (const key of mapKeys(this.#map, FLOW_KEY_BYTES)) {
      if (!known.has(key.toString('hex'))) mapDelete(this.#map, key);
    }
  }

  /** Take all flows of VNIC `id` away. Without effect when it has none. */
  remove(id: number): void {
    const owned = this.#owned.get(id);
    if (owned === undefined) return;
    for (const key of owned.keys.values()) mapDelete(this.#map, key);
    this.#owned.delete(id);
  }

  #refuseTaken(owner: FlowOwner, filters: readonly Filter[]): void {
    for (const other of this.#owned.values()) {
      if (other.owner.id === owner.id) continue;
      for (const theirs of other.filters) {
        const ours = filters.find((filter) => overlaps(filter, theirs));
        if (ours === undefined) continue;
        const text = `${formatFilter(ours)} belongs to VNIC ${other.owner.name}`;
        throw new ArrakisError('ARK_IN_USE', `${text} (${formatFilter(theirs)})`, {
          hint: 'choose another port or address, or take the filter from that VNIC first',
        });
      }
    }
  }

  #insert(keys: readonly Buffer[], value: Buffer): void {
    let done = 0;
    try {
      for (; done < keys.length; done++) mapUpdate(this.#map, keys[done]!, value, true);
    } catch (error) {
      while (--done >= 0) mapDelete(this.#map, keys[done]!);
      assert(!isErrno(error, 'EEXIST'), 'flow keys in the kernel are those we know of');
      if (!isErrno(error, 'E2BIG')) throw error;
      throw new ArrakisError('ARK_LIMIT', `the interface has over ${FLOW_KEYS_MAX} flows`, {
        hint: 'use filters of fewer ports, or whole addresses',
        cause: error,
      });
    }
  }
}
