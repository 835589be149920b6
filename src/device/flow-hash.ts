/**
 * Which queue pair of a VNIC gets a frame. One function for every driver: the software NIC runs it here, the XDP
 * programs run the same steps (programs/spread.ts), and a test holds the one against the other.
 *
 * - Symmetric: both directions of a flow have one hash, so two stacks with as many pairs talk pair to pair.
 * - UDP and TCP are spread by addresses and ports. Fragments of them, first one included, are spread by addresses
 *   alone: all pieces of a datagram meet in one queue, which need not be the one of the flow's whole datagrams.
 * - Everything else (ARP, ICMP, other protocols) is pair 0's: it has no ports, and is rare.
 * - Not keyed: whoever chooses his ports can choose one queue, and so load one thread, never more than that.
 */

/** Odd constants with well-mixed bits: 2^32 over the golden ratio, and MurmurHash3's finalizer (public domain). */
export const FLOW_MIX = { ports: 0x9e3779b1, first: 0x85ebca6b, second: 0xc2b2ae35 } as const;
export const FLOW_SHIFT = { first: 13, second: 16 } as const;
/** Bits of the hash that choose a queue. */
export const FLOW_HASH_BITS = 16;

/** Hash of a flow, 0 to 65535. Addresses in host order; both ports 0 for what has none. */
export function flowHash(from: number, to: number, fromPort: number, toPort: number): number {
  let hash = from ^ to ^ Math.imul(fromPort + toPort, FLOW_MIX.ports);
  hash = Math.imul(hash, FLOW_MIX.first);
  hash ^= hash >>> FLOW_SHIFT.first;
  hash = Math.imul(hash, FLOW_MIX.second);
  return hash >>> FLOW_SHIFT.second;
}

/** The pair, of `pairs`, for a hash: equal shares whatever their number. */
export const pairOfHash = (hash: number, pairs: number): number =>
  (hash * pairs) >>> FLOW_HASH_BITS;
