/**
 * Why a device dropped a packet. The software NIC and the XDP switch count by these, in this order (the order is
 * the index into their counter arrays); `arrakis ls` prints them by name.
 */
export const DROP_REASONS = [
  /** A descriptor pointed outside the registered memory, looped, or had the wrong direction. */
  'badDescriptor',
  /** Shorter than its headers, or than its own length fields claim. */
  'truncated',
  /** Longer than the link carries. */
  'tooLong',
  /** Sent with another source MAC than the VNIC's. */
  'spoofedMac',
  /** Sent with a source address that no filter of the VNIC covers. */
  'spoofedAddress',
  /** Sent with a protocol or source port that no filter of the VNIC covers. */
  'spoofedPort',
  /** ARP, or IPv6 neighbour discovery, that speaks for another than the VNIC. */
  'spoofedArp',
  /** Neither IPv4 nor ARP, nor IPv6 where the device knows it. */
  'otherProtocol',
  /** Nobody has the destination, and there is no uplink. */
  'noDestination',
  /** For a VNIC, but none of its filters matched. */
  'filterMiss',
  /** Sent with an offload that its headers do not allow. */
  'badOffload',
  /** The receiver had no buffer. */
  'noBuffer',
  /** Beyond the limit that is set for the VNIC. */
  'rateExceeded',
] as const;

export type DropReason = (typeof DROP_REASONS)[number];

/** Index of each reason in a counter array. */
export const DROP = Object.fromEntries(DROP_REASONS.map((reason, i) => [reason, i])) as {
  readonly [R in DropReason]: number;
};

/** The non-zero counts of `counts` by name. */
export function namedDrops(counts: ArrayLike<number>): Partial<Record<DropReason, number>> {
  const named: Partial<Record<DropReason, number>> = {};
  DROP_REASONS.forEach((reason, i) => {
    if (counts[i]! > 0) named[reason] = counts[i]!;
  });
  return named;
}
