/**
 * Filters as text, in tcpdump's words (pcap-filter(7)):
 *
 *   expression  =  term { (and | or | && | ||) term }         equal precedence, from the left, as in tcpdump
 *   term        =  (not | !) term  |  "(" expression ")"  |  primitive
 *   primitive   =  any | [protocol] [side] [kind] value | protocol | [ip] proto N[-M]
 *   protocol    =  ip | udp | tcp | icmp
 *   side        =  src | dst | src or dst | src and dst       default: src or dst
 *   kind        =  host A | net A/N | net A mask M | port N | portrange N-M | hostrange A-B     default: host
 *
 * A value alone repeats the words before the last one: `udp dst port 7 or 9`. `ip` is any packet: a filter knows IPv4
 * only. `hostrange` and ranges of protocols are ours; everything else means what it means to tcpdump.
 */
import { type Ipv4, tryParseIpv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  Budget,
  complement,
  DIM,
  EVERYTHING,
  type Filter,
  intersect,
  PROTOCOL,
  type Range,
  SPACE_LAST,
  unite,
} from './boxes.ts';
import { addressIn, networkRange, portIn, protocolIn, requireUsable, type Side } from './build.ts';
import { FILTER_LIMITS } from './limits.ts';

/** The filter is not in the language. The message shows where. */
export class FilterSyntaxError extends ArrakisError {
  override readonly name = 'FilterSyntaxError';
  /** Index of the character that cannot stand there. */
  readonly position: number;

  constructor(text: string, position: number, what: string, hint?: string) {
    super('ARK_BAD_ARGUMENT', `filter: ${what}\n${pointAt(text, position)}`, {
      hint: hint ?? 'write it like tcpdump: udp dst port 53 and src net 10.0.0.0/8',
    });
    this.position = position;
  }
}

const WINDOW = 76;

/** The line of the error, cut to what a terminal shows, and a caret under the place. */
function pointAt(text: string, position: number): string {
  const start = Math.max(0, Math.min(position - WINDOW / 2, text.length - WINDOW));
  const line = text.slice(start, start + WINDOW).replace(/[^\x20-\x7e]/g, ' ');
  return `  ${line}\n  ${' '.repeat(position - start)}^`;
}

/**
 * The filter that `text` says. Throws FilterSyntaxError (ARK_BAD_ARGUMENT) with the place, ARK_BAD_ARGUMENT when no
 * packet matches it, ARK_LIMIT when it is too large.
 */
export function parseFilter(text: string): Filter {
  if (text.length > FILTER_LIMITS.textMax) {
    throw new ArrakisError('ARK_LIMIT', `a filter has at most ${FILTER_LIMITS.textMax} characters`);
  }
  return requireUsable(new Parser(text).parse());
}

interface Token {
  readonly text: string;
  readonly at: number;
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  const pattern = /\s+|[()!]|&&|\|\||[A-Za-z0-9_./:-]+/y;
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(text);
    if (match === null)
      throw new FilterSyntaxError(text, at, `"${shown(text[at]!)}" has no meaning`);
    if (match[0].trim() !== '') tokens.push({ text: match[0], at });
  }
  return tokens;
}

const shown = (character: string): string => character.replace(/[^\x20-\x7e]/, '?');

type Kind = 'host' | 'net' | 'port' | 'portrange' | 'hostrange';
const KINDS: ReadonlySet<string> = new Set(['host', 'net', 'port', 'portrange', 'hostrange']);
const PROTOCOLS: Readonly<Record<string, Filter>> = {
  ip: EVERYTHING,
  udp: protocolIn([PROTOCOL.udp, PROTOCOL.udp]),
  tcp: protocolIn([PROTOCOL.tcp, PROTOCOL.tcp]),
  icmp: protocolIn([PROTOCOL.icmp, PROTOCOL.icmp]),
};
const AND: ReadonlySet<string> = new Set(['and', '&&']);
const OR: ReadonlySet<string> = new Set(['or', '||']);
const NOT: ReadonlySet<string> = new Set(['not', '!']);
/** Words of tcpdump that people will try, and why they are not here. */
const FOREIGN: Readonly<Record<string, string>> = {
  arp: 'ARP goes to whoever has every packet for the address: dst host A, without more',
  ip6: 'there is IPv4 only so far',
  ether: 'a VNIC has one MAC address, and always checks it',
  vlan: 'VLAN tags are the interface’s matter: take the VLAN interface as device',
  sctp: 'write ip proto 132',
  icmp6: 'there is IPv4 only so far',
  gateway: 'name the hosts themselves',
  less: 'filters do not look at lengths',
  greater: 'filters do not look at lengths',
};

/** The words before a value. */
interface Qualifiers {
  readonly protocol: Filter;
  /** `both`: source and destination. */
  readonly side: Side | 'both';
  readonly kind: Kind;
}

class Parser {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;
  #qualifiers: Qualifiers | null = null;
  /** One for the whole expression, however many operations it has. */
  readonly #budget = new Budget();

  constructor(text: string) {
    this.#text = text;
    this.#tokens = tokensOf(text);
  }

  parse(): Filter {
    if (this.#tokens.length === 0)
      throw this.#wrong('the filter is empty', 'write any for all packets');
    const filter = this.#expression();
    if (this.#peek() !== '') throw this.#wrong(`"${this.#peek()}" does not continue the filter`);
    return filter;
  }

  /** Text of the next token; empty at the end. */
  #peek(ahead = 0): string {
    return this.#tokens[this.#next + ahead]?.text ?? '';
  }

  #take(): string {
    return this.#tokens[this.#next++]?.text ?? '';
  }

  #taken(words: ReadonlySet<string>): boolean {
    if (!words.has(this.#peek())) return false;
    this.#next++;
    return true;
  }

  /** An error at the next token, or `back` tokens before it. */
  #wrong(what: string, hint?: string, back = 0): FilterSyntaxError {
    const at = this.#tokens[this.#next - back]?.at ?? this.#text.length;
    return new FilterSyntaxError(this.#text, at, what, hint);
  }

  #expected(what: string): FilterSyntaxError {
    const there = this.#peek() === '' ? 'the filter ends' : `there is "${this.#peek()}"`;
    return this.#wrong(`${what} is expected, and ${there}`);
  }

  #expression(): Filter {
    let left = this.#term();
    for (;;) {
      if (this.#taken(AND)) left = intersect(left, this.#term(), this.#budget);
      else if (this.#taken(OR)) left = unite(left, this.#term(), this.#budget);
      else return left;
    }
  }

  #term(): Filter {
    if (++this.#depth > FILTER_LIMITS.depthMax) {
      throw this.#wrong(`more than ${FILTER_LIMITS.depthMax} parentheses inside each other`);
    }
    let filter: Filter;
    if (this.#taken(NOT)) filter = complement(this.#term(), this.#budget);
    else if (this.#peek() === '(') {
      this.#take();
      filter = this.#expression();
      if (this.#peek() !== ')') throw this.#expected('")"');
      this.#take();
    } else filter = this.#primitive();
    this.#depth--;
    return filter;
  }

  #primitive(): Filter {
    const word = this.#peek();
    if (this.#qualifiers !== null && isValue(word)) return this.#value(this.#qualifiers);
    if (word === 'any') {
      this.#take();
      return EVERYTHING;
    }
    if (word === 'proto') return this.#protocolNumber();
    const foreign = Object.hasOwn(FOREIGN, word) ? FOREIGN[word] : undefined;
    if (foreign !== undefined) throw this.#wrong(`"${word}" is not of this language`, foreign);
    const named = Object.hasOwn(PROTOCOLS, word) ? PROTOCOLS[word] : undefined;
    if (named !== undefined) this.#take();
    if (word === 'ip' && this.#peek() === 'proto') return this.#protocolNumber();
    const side = this.#side();
    const kind = KINDS.has(this.#peek()) ? (this.#take() as Kind) : null;
    if (kind === null && side === null) {
      if (named !== undefined) return named;
      if (!isValue(word)) throw this.#expected('a protocol, src, dst, host, net or port');
    }
    const qualifiers: Qualifiers = {
      protocol: named ?? EVERYTHING,
      side: side ?? 'either',
      kind: kind ?? 'host',
    };
    this.#qualifiers = qualifiers;
    return this.#value(qualifiers);
  }

  #protocolNumber(): Filter {
    this.#take();
    const name = this.#peek();
    if (name !== 'ip' && Object.hasOwn(PROTOCOLS, name)) {
      this.#take();
      return PROTOCOLS[name]!;
    }
    return protocolIn(this.#numbers('a protocol', SPACE_LAST[DIM.protocol]!, true));
  }

  #side(): Qualifiers['side'] | null {
    const sides: Readonly<Record<string, Side>> = { src: 'source', dst: 'destination' };
    const first = this.#peek();
    if (!Object.hasOwn(sides, first)) return null;
    this.#take();
    const joint = this.#peek();
    const second = this.#peek(1);
    if (!Object.hasOwn(sides, second) || second === first) return sides[first]!;
    if (!AND.has(joint) && !OR.has(joint)) return sides[first]!;
    this.#next += 2;
    return AND.has(joint) ? 'both' : 'either';
  }

  #value({ protocol, side, kind }: Qualifiers): Filter {
    const isPort = kind === 'port' || kind === 'portrange';
    const range = isPort ? this.#ports(kind) : this.#addresses(kind);
    const on = isPort ? portIn : addressIn;
    const sided =
      side === 'both' ? intersect(on('source', range), on('destination', range)) : on(side, range);
    return protocol === EVERYTHING ? sided : intersect(protocol, sided);
  }

  #ports(kind: Kind): Range {
    return this.#numbers('a port', SPACE_LAST[DIM.sourcePort]!, kind === 'portrange');
  }

  /** `N`, or `N-M` where a range may stand. */
  #numbers(what: string, max: number, ranged: boolean): Range {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(this.#peek());
    if (match === null) throw this.#expected(`${what}, a number,`);
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (match[2] !== undefined && !ranged) {
      throw this.#wrong(`"${match[0]}" is a range`, `write portrange ${match[0]}`);
    }
    if (last > max || first > max) throw this.#wrong(`${what} is at most ${max}`);
    if (first > last) throw this.#wrong(`${first} is above ${last}`);
    this.#take();
    return [first, last];
  }

  #addresses(kind: Kind): Range {
    const word = this.#peek();
    if (kind === 'host') return [this.#address(word), this.#address(this.#take(), 1)];
    if (kind === 'hostrange') {
      const [from = '', to = ''] = word.split('-', 2);
      const range: Range = [this.#address(from), this.#address(to)];
      if (range[0] > range[1]) throw this.#wrong(`${from} is above ${to}`);
      this.#take();
      return range;
    }
    const masked = this.#peek(1) === 'mask';
    const network = masked ? `${word}/${this.#maskLength(this.#peek(2))}` : word;
    if (!network.includes('/')) {
      throw this.#wrong(`"${word}" has no prefix length`, `write net ${word}/24, or host ${word}`);
    }
    let range: Range;
    try {
      range = networkRange(network);
    } catch (error) {
      const { message, hint } = error as ArrakisError;
      throw this.#wrong(message, hint);
    }
    this.#next += masked ? 3 : 1;
    return range;
  }

  #address(text: string, back = 0): Ipv4 {
    const address = tryParseIpv4(text);
    if (address !== -1) return address;
    if (!isValue(text)) throw this.#expected('an address');
    throw this.#wrong(`"${text}" is not an IPv4 address`, 'write it as 10.0.0.2', back);
  }

  #maskLength(text: string): number {
    const mask = tryParseIpv4(text);
    const length = Math.clz32(~mask);
    if (mask !== -1 && (length === 32 ? mask === 0xffffffff : mask === maskOf(length)))
      return length;
    throw this.#wrong(`"${text}" is no network mask`, 'write it as 255.255.255.0');
  }
}

const maskOf = (length: number): number => (length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0);

/** Numbers and addresses begin with a digit; no word does. */
const isValue = (word: string): boolean => /^[0-9]/.test(word);
