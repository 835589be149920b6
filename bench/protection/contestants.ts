/** Everything that `arrakis bench protection` measures, and what it should find of each before it does. */
import type { BenchRow } from '../stats.ts';
import type { Contestant } from './contest.ts';
import type { PartsName } from './parts.ts';
import { pipeContestant } from './pipe.ts';
import type { Findings } from './probe.ts';
import { softContestant } from './softnic.ts';
import { type XdpWithout, xdpContestant } from './xdp.ts';

export type System = 'arrakis/virtio' | 'arrakis/af-xdp-switched';

/** One arrangement, by what is off. */
export interface Entry {
  readonly system: System;
  readonly link: BenchRow['link'];
  /** `nothing`: all protection is on. */
  readonly without: string;
  readonly expected: Findings;
  start(deviceCpu: number): Promise<Contestant>;
}

const ON: Findings = {
  stopsSpoofed: true,
  stopsForeign: true,
  limits: { send: true, receive: true },
  counts: true,
};
const NO_LIMITS = { send: null, receive: null };

function soft(
  without: string,
  expected: Partial<Findings> = {},
  parts: PartsName = 'nothing',
  options: { rates?: boolean; thread?: boolean } = {},
): Entry {
  const { rates = true, thread = false } = options;
  return {
    system: 'arrakis/virtio',
    link: 'softnic',
    without,
    expected: { ...ON, ...expected },
    start: (cpu) => softContestant({ without: parts, rates, thread, cpu }),
  };
}

function xdp(
  without: string,
  expected: Partial<Findings> = {},
  programs: XdpWithout = 'nothing',
  rates = true,
): Entry {
  return {
    system: 'arrakis/af-xdp-switched',
    link: 'veth',
    without,
    expected: { ...ON, ...expected },
    start: async () => xdpContestant({ without: programs, rates }),
  };
}

const OPEN = { stopsSpoofed: false, stopsForeign: false };
const DIRECT = { stopsSpoofed: null, limits: { send: null, receive: true } };

const SOFT: readonly Entry[] = [
  soft('nothing'),
  soft('descriptor checks', {}, 'descriptor checks'),
  soft('private copy', {}, 'private copy'),
  soft('send check', { stopsSpoofed: false }, 'send check'),
  soft('receive filter', { stopsForeign: false }, 'receive filter'),
  soft('both, and reading headers', OPEN, 'reading headers'),
  soft('rate limits', { limits: NO_LIMITS }, 'nothing', { rates: false }),
  soft('process of its own', {}, 'nothing', { thread: true }),
  soft('everything', { ...OPEN, limits: NO_LIMITS }, 'everything', { rates: false }),
  {
    system: 'arrakis/virtio',
    link: 'memory',
    without: 'a device at all',
    expected: { ...OPEN, limits: NO_LIMITS, counts: null },
    start: async () => pipeContestant(),
  },
];

const XDP: readonly Entry[] = [
  xdp('nothing'),
  xdp('send check', { stopsSpoofed: false }, 'send check'),
  xdp('receive filter', { stopsForeign: false }, 'receive filter'),
  xdp('rate limits', { limits: NO_LIMITS }, 'nothing', false),
  xdp('counters', { counts: false }, 'counters'),
  xdp(
    'everything',
    { ...OPEN, limits: { send: false, receive: false }, counts: false },
    'everything',
  ),
  xdp('second veth', DIRECT, 'second veth'),
  xdp(
    'everything and second veth',
    {
      stopsSpoofed: null,
      stopsForeign: false,
      limits: { send: null, receive: false },
      counts: false,
    },
    'everything and second veth',
  ),
];

/** What can run here: AF_XDP needs root. */
export const groups = (): (readonly Entry[])[] => (process.getuid?.() === 0 ? [SOFT, XDP] : [SOFT]);

/** A mechanism's price: what `base` takes more than `off`. */
export interface Price {
  readonly system: System;
  readonly mechanism: string;
  readonly base: string;
  readonly off: string;
  /** Of a packet there and one back, how many meet it. */
  readonly meets: 1 | 2;
}

const price = (
  system: System,
  mechanism: string,
  meets: 1 | 2 = 2,
  off = mechanism,
  base = 'nothing',
): Price => ({ system, mechanism, base, off, meets });

const SOFTNIC = 'arrakis/virtio';
const SWITCHED = 'arrakis/af-xdp-switched';

export const PRICES: readonly Price[] = [
  price(SOFTNIC, 'descriptor checks'),
  price(SOFTNIC, 'private copy'),
  price(SOFTNIC, 'send check'),
  price(SOFTNIC, 'receive filter'),
  price(SOFTNIC, 'both, and reading headers'),
  price(SOFTNIC, 'rate limits'),
  price(SOFTNIC, 'process of its own'),
  price(SOFTNIC, 'everything'),
  // A packet to the VNIC meets steer, one from it the guard; the others meet both.
  price(SWITCHED, 'send check', 1),
  price(SWITCHED, 'receive filter', 1),
  price(SWITCHED, 'rate limits'),
  price(SWITCHED, 'counters'),
  price(SWITCHED, 'everything'),
  price(SWITCHED, 'second veth', 2, 'everything and second veth', 'everything'),
];
