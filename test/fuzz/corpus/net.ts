/**
 * Frames and seeds that once were worth a second look; every run of the fuzz tests starts with them.
 * A frame is hex, as received by 02:00:00:00:00:02, 10.0.0.2.
 */
export const FRAMES: readonly { readonly why: string; readonly hex: string }[] = [
  { why: 'nothing', hex: '' },
  { why: 'an Ethernet header alone', hex: '020000000002 020000000001 0800' },
  {
    why: 'IPv4 header length 60 in a datagram of 20 bytes',
    hex: '020000000002 020000000001 0800 4f00 0014 0007 4000 4011 2000 0a000001 0a000002',
  },
  {
    why: 'UDP length 0, which jumbograms alone may have',
    hex: '020000000002 020000000001 0800 4500001c00074000 4011 26c8 0a000001 0a000002 0400 0007 0000 0000',
  },
  {
    why: 'an ICMP echo whose reply is all zeros: the checksum must not be',
    hex: '020000000002 020000000001 0800 4500001c00074000 4001 26d8 0a000001 0a000002 0800 f7ff 0000 0000',
  },
  {
    why: 'an ARP request from ourselves',
    hex: 'ffffffffffff 020000000001 0806 0001 0800 0604 0001 020000000001 0a000002 000000000000 0a000002',
  },
  {
    why: 'UDP with source port 0 and our own echo port as source',
    hex: '020000000002 020000000001 0800 4500001c00074000 4011 26c8 0a000001 0a000002 0000 0007 0008 0000',
  },
];

/** Seeds beside the test's own. */
export const SEEDS: readonly number[] = [1, 0x7fffffff, 0xdeadbeef];
