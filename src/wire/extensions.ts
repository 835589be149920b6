/**
 * The headers between the IPv6 header and its payload (RFC 8200, section 4): a walk with bounds.
 *
 *   hop-by-hop  destination options   length in 8 bytes, options; what an unknown one asks for is in its first two bits
 *   routing                           nothing left to visit: passed over; otherwise refused, type 0 too (RFC 5095)
 *   fragment                          ends the walk, unless it is the whole packet (RFC 6946)
 *
 * Headers and options in one packet are few (RFC 8504, section 5.3): what has more is dropped.
 */

const HOP_BY_HOP = 0;
const ROUTING = 43;
export const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;

export const FRAGMENT_LEN = 8;
const ROUTING_TYPE = 2;
const SEGMENTS_LEFT = 3;
const PAD1 = 0;
const PADN = 1;
const OPTION_ROUTER_ALERT = 5;

const HEADERS_MAX = 8;
/** Options in one packet, padding among them. */
const OPTIONS_MAX = 16;

/** What a walk came to. */
export const WALK = {
  /** `protocol` and `payloadAt` say what is there. */
  payload: 0,
  /** A piece of a packet: `fragmentAt`, and `payloadAt` after it. */
  fragment: 1,
  /** It ends within a header, or has too many. */
  malformed: -1,
  /** An option that we do not know says: drop it. */
  discard: -2,
  /** ICMPv6 "parameter problem" with `code`, about the byte at `pointer`. */
  problem: -3,
} as const;

/** Codes of a parameter problem (RFC 4443, section 3.4). */
export const PROBLEM = { field: 0, nextHeader: 1, option: 2 } as const;

/** One walk; the object is for all packets. */
export class HeaderWalk {
  /** The header that the walk ended at, and where it begins. */
  protocol = 0;
  payloadAt = 0;
  /** Where the byte is that says `protocol`. */
  nextAt = 0;
  /** The fragment header of a piece; -1: none. */
  fragmentAt = -1;
  /** There was one, be it only of a whole packet. */
  hasFragment = false;
  /** Of a parameter problem: its code, and the place in the frame. */
  code = 0;
  pointer = 0;
  /** The problem is told to the sender of a multicast packet, too. */
  tellsGroup = false;
  #options = 0;
  /** Look at lengths only, to find what is behind all headers. */
  readonly #isLenient: boolean;

  constructor(isLenient = false) {
    this.#isLenient = isLenient;
  }

  /**
   * From the header `first` at `at` on, `nextAt` being where the byte stands that says `first`. `isPacket`: it follows the
   * IPv6 header, so that hop-by-hop options may come. Returns one of WALK.
   */
  run(
    frame: DataView,
    at: number,
    end: number,
    first: number,
    nextAt: number,
    isPacket: boolean,
  ): number {
    this.protocol = first;
    this.payloadAt = at;
    this.nextAt = nextAt;
    this.fragmentAt = -1;
    this.hasFragment = false;
    this.#options = 0;
    for (let count = 0; count <= HEADERS_MAX; count++) {
      const header = this.protocol;
      const here = this.payloadAt;
      if (header === FRAGMENT) {
        if (!this.#passFragment(frame, here, end)) return WALK.malformed;
        if (this.fragmentAt >= 0) return WALK.fragment;
        continue;
      }
      if (header !== HOP_BY_HOP && header !== ROUTING && header !== DESTINATION_OPTIONS) {
        return WALK.payload;
      }
      if (header === HOP_BY_HOP && !(isPacket && here === at)) {
        return this.#problem(PROBLEM.nextHeader, this.nextAt, true);
      }
      if (end - here < 8) return WALK.malformed;
      const next = here + 8 * (frame.getUint8(here + 1) + 1);
      if (next > end) return WALK.malformed;
      if (this.#isLenient) {
        // Whatever it asks for.
      } else if (header === ROUTING) {
        if (frame.getUint8(here + SEGMENTS_LEFT) !== 0) {
          return this.#problem(PROBLEM.field, here + ROUTING_TYPE, false);
        }
      } else {
        const outcome = this.#passOptions(frame, here + 2, next);
        if (outcome !== WALK.payload) return outcome;
      }
      this.protocol = frame.getUint8(here);
      this.nextAt = here;
      this.payloadAt = next;
    }
    return WALK.malformed;
  }

  #passFragment(frame: DataView, at: number, end: number): boolean {
    if (end - at < FRAGMENT_LEN) return false;
    this.hasFragment = true;
    // Offset 0 and no more to come: a packet in one piece.
    if ((frame.getUint16(at + 2) & 0xfff9) !== 0) this.fragmentAt = at;
    this.protocol = frame.getUint8(at);
    this.nextAt = at;
    this.payloadAt = at + FRAGMENT_LEN;
    return true;
  }

  /** Look at the options from `at` to `end` (RFC 8200, section 4.2). */
  #passOptions(frame: DataView, from: number, end: number): number {
    let at = from;
    while (at < end) {
      if (++this.#options > OPTIONS_MAX) return WALK.malformed;
      const type = frame.getUint8(at);
      if (type === PAD1) {
        at++;
        continue;
      }
      if (at + 2 > end) return WALK.malformed;
      const next = at + 2 + frame.getUint8(at + 1);
      if (next > end) return WALK.malformed;
      if (type !== PADN && type !== OPTION_ROUTER_ALERT) {
        const action = type >>> 6;
        if (action === 1) return WALK.discard;
        if (action > 1) return this.#problem(PROBLEM.option, at, action === 2);
      }
      at = next;
    }
    return WALK.payload;
  }

  #problem(code: number, pointer: number, tellsGroup: boolean): number {
    this.code = code;
    this.pointer = pointer;
    this.tellsGroup = tellsGroup && code === PROBLEM.option;
    return WALK.problem;
  }
}

/** Fields of a fragment header: offset in bytes, whether more follow, and the identification (int32). */
export const fragmentOffset = (frame: DataView, at: number): number =>
  frame.getUint16(at + 2) & 0xfff8;
export const moreFragments = (frame: DataView, at: number): boolean =>
  (frame.getUint16(at + 2) & 1) !== 0;
export const fragmentId = (frame: DataView, at: number): number => frame.getInt32(at + 4);

/** Write the header of a piece at byte `offset` of the packet's payload, which `next` begins. */
export function emitFragment(
  frame: DataView,
  at: number,
  next: number,
  offset: number,
  more: boolean,
  id: number,
): void {
  frame.setUint16(at, next << 8);
  frame.setUint16(at + 2, offset | (more ? 1 : 0));
  frame.setInt32(at + 4, id);
}

export const ROUTER_ALERT_LEN = 8;

/** Write hop-by-hop options with a router alert for MLD (RFC 2711), before the header `next`. */
export function emitRouterAlert(frame: DataView, at: number, next: number): void {
  frame.setUint16(at, next << 8);
  frame.setUint16(at + 2, (OPTION_ROUTER_ALERT << 8) | 2);
  frame.setUint16(at + 4, 0);
  frame.setUint16(at + 6, PADN << 8);
}
