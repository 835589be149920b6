/**
 * The flow table of one interface: filters as keys of the `flows` map (programs/), and who owns them.
 *
 * - A change is checked whole, then made: new keys are added before old ones go, so that a flow which stays never
 *   misses a packet; when the kernel refuses half-way, what was added is taken back.
 * - A port range has one key per port, all ports together one key for the protocol.
 */
import { assert } from '../../base/assert.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { FLOW_PROTOCOL, type FlowFilter, formatFilter, overlaps } from '../../device/filter.ts';
import { mapDelete, mapKeys, mapUpdate } from '../../ffi/bpf.ts';
import { FLOW_KEY_BYTES, FLOW_VALUE_BYTES, KIND, SCOPE } from './programs/index.ts';

/** Keys that the filters of one VNIC may expand to. */
export const FLOW_KEYS_PER_VNIC_MAX = 1024;
/** Keys of all VNICs of an interface. */
export const FLOW_KEYS_MAX = 32768;

/** Whose flows they are, and where they go. */
export interface FlowOwner {
  readonly name: string;
  readonly id: number;
  readonly kind: keyof typeof KIND;
  /** First receive queue of a direct VNIC, otherwise 0. */
  readonly queue: number;
  /** Queues that it has: of the interface, or veth pairs. */
  readonly queues: number;
}

interface Owned {
  owner: FlowOwner;
  filters: readonly FlowFilter[];
  /** By their hexadecimal form. */
  keys: Map<string, Buffer>;
}

function flowKey(address: number, port: number, protocol: number, scope: number): Buffer {
  const key = Buffer.alloc(FLOW_KEY_BYTES);
  key.writeUInt32BE(address, 0);
  key.writeUInt16BE(port, 4);
  key.writeUInt8(protocol, 6);
  key.writeUInt8(scope, 7);
  return key;
}

function checkFilter(filter: FlowFilter): void {
  const { portFirst, portLast } = filter;
  const isPort = (port: number): boolean => Number.isInteger(port) && port >= 0 && port <= 65535;
  if (!isPort(portFirst) || !isPort(portLast) || portFirst > portLast) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `filter with ports ${portFirst} to ${portLast}`, {
      hint: 'ports go from 0 to 65535, the first not above the last',
    });
  }
}

/** Without ports, or with all of them: one key. */
function isWhole({ protocol, portFirst, portLast }: FlowFilter): boolean {
  const hasPorts = protocol === 'udp' || protocol === 'tcp';
  return !hasPorts || (portFirst === 0 && portLast === 65535);
}

/** Counts before any key is made, those of overlapping filters twice: their repetition costs the daemon's time too. */
function requireFewKeys(filters: readonly FlowFilter[]): void {
  let count = 0;
  for (const filter of filters) {
    checkFilter(filter);
    count += isWhole(filter) ? 1 : filter.portLast - filter.portFirst + 1;
  }
  if (count <= FLOW_KEYS_PER_VNIC_MAX) return;
  throw new ArrakisError('ARK_LIMIT', `filters for over ${FLOW_KEYS_PER_VNIC_MAX} flows`, {
    hint: 'a port range counts once per port; take all ports of the protocol, or the whole address',
  });
}

/** All keys of `filters` for VNIC `id`. Throws ARK_LIMIT when they are too many. */
export function expandFilters(filters: readonly FlowFilter[], id: number): Map<string, Buffer> {
  requireFewKeys(filters);
  const keys = new Map<string, Buffer>();
  const add = (key: Buffer): void => {
    keys.set(key.toString('hex'), key);
  };
  for (const filter of filters) {
    const { address, portFirst, portLast } = filter;
    const protocol = FLOW_PROTOCOL[filter.protocol];
    if (isWhole(filter)) {
      add(flowKey(address, 0, protocol, SCOPE.protocol));
    } else {
      for (let port = portFirst; port <= portLast; port++) {
        add(flowKey(address, port, protocol, SCOPE.port));
      }
    }
  }
  // Not counted among the flows: they only tell a wrong port from a wrong address.
  for (const { address } of filters) {
    const present = presentKey(address, id);
    keys.set(present.toString('hex'), present);
  }
  return keys;
}

function presentKey(address: number, id: number): Buffer {
  const key = flowKey(address, 0, 0, SCOPE.present);
  // Only the guard program of VNIC `id` makes this key, from an immediate: machine order.
  key.writeUInt16LE(id, 4);
  return key;
}

function flowValue(owner: FlowOwner): Buffer {
  const value = Buffer.alloc(FLOW_VALUE_BYTES);
  value.writeUInt32LE(owner.id, 0);
  value.writeUInt8(KIND[owner.kind], 4);
  value.writeUInt8(owner.queues, 5);
  value.writeUInt16LE(owner.queue, 6);
  return value;
}

export class FlowTable {
  readonly #map: number;
  readonly #owned = new Map<number, Owned>();

  /** `map`: descriptor of the `flows` map; stays the caller's. */
  constructor(map: number) {
    this.#map = map;
  }

  /** Give `owner` exactly these flows. ARK_IN_USE when another VNIC has one, ARK_LIMIT when they are too many. */
  set(owner: FlowOwner, filters: readonly FlowFilter[]): void {
    this.#refuseTaken(owner, filters);
    const keys = expandFilters(filters, owner.id);
    const before = this.#owned.get(owner.id)?.keys ?? new Map<string, Buffer>();
    this.#insert(
      [...keys].filter(([text]) => !before.has(text)),
      flowValue(owner),
    );
    for (const [text, key] of before) if (!keys.has(text)) mapDelete(this.#map, key);
    this.#owned.set(owner.id, { owner, filters: [...filters], keys });
  }

  /** Go on with flows that the map has from the daemon before; what is missing there is added. */
  adopt(owner: FlowOwner, filters: readonly FlowFilter[]): void {
    this.#refuseTaken(owner, filters);
    const keys = expandFilters(filters, owner.id);
    const value = flowValue(owner);
    for (const key of keys.values()) mapUpdate(this.#map, key, value);
    this.#owned.set(owner.id, { owner, filters: [...filters], keys });
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

  #refuseTaken(owner: FlowOwner, filters: readonly FlowFilter[]): void {
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

  #insert(entries: [string, Buffer][], value: Buffer): void {
    let done = 0;
    try {
      for (; done < entries.length; done++) mapUpdate(this.#map, entries[done]![1], value, true);
    } catch (error) {
      while (--done >= 0) mapDelete(this.#map, entries[done]![1]);
      assert(!isErrno(error, 'EEXIST'), 'flow keys in the kernel are those we know of');
      if (!isErrno(error, 'E2BIG')) throw error;
      throw new ArrakisError('ARK_LIMIT', `the interface has over ${FLOW_KEYS_MAX} flows`, {
        hint: 'use filters of fewer ports, or whole addresses',
        cause: error,
      });
    }
  }
}
