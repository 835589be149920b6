/**
 * HTTP/1.1 request heads (RFC 9112), parsed where they lie.
 *
 * - `parse` reads one head in one pass: bytes used, 0 when it is not whole yet, or minus the status to refuse it with.
 * - What the server needs is left in fields: offsets into the bytes that were parsed, valid until they change.
 * - Lenient nowhere: a bare CR or LF, a folded or nameless field, a space before a colon or a control character is 400.
 * - Nothing is allocated.
 */

/** Longest head, and longest request target in it. */
export const HEAD_BYTES_MAX = 8192;
export const TARGET_BYTES_MAX = 4096;
const FIELDS_MAX = 100;

export const METHOD = {
  get: 0,
  head: 1,
  /** One that HTTP knows and a static server does not offer. */
  other: 2,
  unknown: 3,
} as const satisfies Record<string, number>;

const CR = 13;
const LF = 10;
const SP = 32;
const HTAB = 9;
const COLON = 58;
const SLASH = 47;
const COMMA = 44;

/** `tchar` of RFC 9110, section 5.6.2: 1; everything else: 0. */
const IS_TOKEN = new Uint8Array(256);
for (const c of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  IS_TOKEN[c.charCodeAt(0)] = 1;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'));
const GET = ascii('GET');
const HEAD = ascii('HEAD');
const OTHER = ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH', 'CONNECT'].map(ascii);
const VERSION = ascii('HTTP/1.');
const PROTOCOL = ascii('HTTP/');
const SCHEME = ascii('http://');

/** Fields that the server looks at, lower case. */
const HOST = ascii('host');
const RANGE = ascii('range');
const EXPECT = ascii('expect');
const IF_RANGE = ascii('if-range');
const CONNECTION = ascii('connection');
const IF_NONE_MATCH = ascii('if-none-match');
const CONTENT_LENGTH = ascii('content-length');
const IF_MODIFIED_SINCE = ascii('if-modified-since');
const TRANSFER_ENCODING = ascii('transfer-encoding');
const CLOSE = ascii('close');
const KEEP_ALIVE = ascii('keep-alive');

/** True when `length` bytes at `at` are `word`, which is in lower case, whatever their own case is. */
function isWord(u8: Uint8Array, at: number, length: number, word: Uint8Array): boolean {
  if (length !== word.length) return false;
  for (let i = 0; i < length; i++) {
    const c = u8[at + i]!;
    if ((c >= 65 && c <= 90 ? c | 32 : c) !== word[i]) return false;
  }
  return true;
}

function isExactly(u8: Uint8Array, at: number, length: number, word: Uint8Array): boolean {
  if (length !== word.length) return false;
  for (let i = 0; i < length; i++) if (u8[at + i] !== word[i]) return false;
  return true;
}

/** A field's value: `[at, end)`; `at` is -1 when the request has none. */
export interface Span {
  at: number;
  end: number;
}
const span = (): Span => ({ at: -1, end: -1 });

export class RequestHead {
  method: number = METHOD.unknown;
  /** The path and query of the target; `at` is -2 for the root of `http://host`. */
  readonly target = span();
  keepAlive = true;
  /** It has a body, which a static server does not want. */
  hasBody = false;
  readonly range = span();
  readonly ifRange = span();
  readonly ifNoneMatch = span();
  readonly ifModifiedSince = span();
  #minor = 1;
  #hosts = 0;
  #status = 0;
  #at = 0;
  #contentLength = -1;
  #isChunked = false;
  #sawClose = false;
  #sawKeepAlive = false;

  /** Parse the head at `from` of `u8`, which has bytes up to `to`. */
  parse(u8: Uint8Array, from: number, to: number): number {
    this.#reset();
    let at = from;
    // An empty line before a request is passed over (RFC 9112, section 2.2).
    if (to - at >= 2 && u8[at] === CR && u8[at + 1] === LF) at += 2;
    const limit = Math.min(to, at + HEAD_BYTES_MAX);
    at = this.#requestLine(u8, at, limit);
    for (let fields = 0; at > 0; fields++) {
      if (limit - at < 2) return this.#short(from, to);
      if (u8[at] === CR) {
        if (u8[at + 1] !== LF) return -400;
        return this.#finish(at + 2 - from);
      }
      if (fields === FIELDS_MAX) return -431;
      at = this.#field(u8, at, limit);
    }
    return this.#status === 0 ? this.#short(from, to) : this.#status;
  }

  #reset(): void {
    this.method = METHOD.unknown;
    this.keepAlive = true;
    this.hasBody = false;
    this.target.at = -1;
    this.range.at = -1;
    this.ifRange.at = -1;
    this.ifNoneMatch.at = -1;
    this.ifModifiedSince.at = -1;
    this.#hosts = 0;
    this.#status = 0;
    this.#contentLength = -1;
    this.#isChunked = false;
    this.#sawClose = false;
    this.#sawKeepAlive = false;
  }

  /** The bytes end before the head does: wait for more, unless it is too long already. */
  #short(from: number, to: number): number {
    if (to - from < HEAD_BYTES_MAX) return 0;
    return this.target.at < 0 ? -414 : -431;
  }

  /** 0 and a status when it is refused; 0 and none when there is not enough; otherwise where the next line begins. */
  #fail(status: number): number {
    this.#status = -status;
    return 0;
  }

  #requestLine(u8: Uint8Array, from: number, limit: number): number {
    let at = from;
    while (at < limit && IS_TOKEN[u8[at]!] === 1) at++;
    if (at === limit) return 0;
    if (u8[at] !== SP || at === from) return this.#fail(400);
    this.#setMethod(u8, from, at - from);
    const targetAt = ++at;
    while (at < limit && u8[at]! > SP && u8[at] !== 127) at++;
    if (at - targetAt > TARGET_BYTES_MAX) return this.#fail(414);
    if (at === limit) return 0;
    if (u8[at] !== SP || at === targetAt) return this.#fail(400);
    const end = at++;
    // HTTP/1.x CR LF: ten bytes.
    if (limit - at < VERSION.length + 3) return 0;
    if (!isExactly(u8, at, VERSION.length, VERSION)) {
      return this.#fail(isExactly(u8, at, PROTOCOL.length, PROTOCOL) ? 505 : 400);
    }
    const minor = u8[at + VERSION.length]! - 48;
    if (minor < 0 || minor > 9) return this.#fail(400);
    this.#minor = minor;
    at += VERSION.length + 1;
    if (u8[at] !== CR || u8[at + 1] !== LF) return this.#fail(400);
    return this.#setTarget(u8, targetAt, end) ? at + 2 : this.#fail(400);
  }

  #setMethod(u8: Uint8Array, at: number, length: number): void {
    if (isExactly(u8, at, length, GET)) this.method = METHOD.get;
    else if (isExactly(u8, at, length, HEAD)) this.method = METHOD.head;
    else if (OTHER.some((word) => isExactly(u8, at, length, word))) this.method = METHOD.other;
  }

  /** The path of `/path`, `http://host/path` (RFC 9112, section 3.2.2), or `*`. */
  #setTarget(u8: Uint8Array, from: number, end: number): boolean {
    let at = from;
    if (u8[at] !== SLASH) {
      const isAsterisk = end - at === 1 && u8[at] === 42;
      if (!isAsterisk && isWord(u8, at, Math.min(SCHEME.length, end - at), SCHEME)) {
        at += SCHEME.length;
        while (at < end && u8[at] !== SLASH) at++;
        if (at === end) at = -2;
      } else if (!isAsterisk && this.method <= METHOD.head) {
        return false;
      }
    }
    this.target.at = at;
    this.target.end = at < 0 ? at : end;
    return true;
  }

  #field(u8: Uint8Array, from: number, limit: number): number {
    let at = from;
    while (at < limit && IS_TOKEN[u8[at]!] === 1) at++;
    if (at === limit) return 0;
    if (u8[at] !== COLON || at === from) return this.#fail(400);
    const nameLength = at - from;
    at++;
    while (at < limit && (u8[at] === SP || u8[at] === HTAB)) at++;
    const valueAt = at;
    while (at < limit && (u8[at]! >= SP || u8[at] === HTAB) && u8[at] !== 127) at++;
    if (limit - at < 2) {
      const stopped = at < limit && u8[at] !== CR;
      return stopped ? this.#fail(400) : 0;
    }
    if (u8[at] !== CR || u8[at + 1] !== LF) return this.#fail(400);
    let valueEnd = at;
    while (valueEnd > valueAt && (u8[valueEnd - 1] === SP || u8[valueEnd - 1] === HTAB)) valueEnd--;
    this.#at = valueAt;
    return this.#look(u8, from, nameLength, valueEnd) ? at + 2 : 0;
  }

  /** Remember a field of interest; its name's length tells most of them apart. */
  #look(u8: Uint8Array, at: number, length: number, end: number): boolean {
    const is = (word: Uint8Array): boolean => isWord(u8, at, length, word);
    if (length === 4) {
      if (is(HOST)) this.#hosts++;
    } else if (length === 5) {
      if (is(RANGE)) this.#keep(this.range, end);
    } else if (length === 6) {
      // 100-continue: we answer without the body.
      if (is(EXPECT)) this.hasBody = true;
    } else if (length === 8) {
      if (is(IF_RANGE)) this.#keep(this.ifRange, end);
    } else if (length === 10) {
      if (is(CONNECTION)) this.#connection(u8, end);
    } else if (length === 13) {
      if (is(IF_NONE_MATCH)) this.#keep(this.ifNoneMatch, end);
    } else if (length === 14) {
      if (is(CONTENT_LENGTH)) return this.#length(u8, end);
    } else if (length === 17) {
      if (is(IF_MODIFIED_SINCE)) this.#keep(this.ifModifiedSince, end);
      else if (is(TRANSFER_ENCODING)) this.#isChunked = true;
    }
    return true;
  }

  #keep(field: Span, end: number): void {
    field.at = this.#at;
    field.end = end;
  }

  /** `close` and `keep-alive` in a list of tokens. */
  #connection(u8: Uint8Array, end: number): void {
    let at = this.#at;
    while (at < end) {
      while (at < end && (u8[at] === SP || u8[at] === HTAB || u8[at] === COMMA)) at++;
      const from = at;
      while (at < end && IS_TOKEN[u8[at]!] === 1) at++;
      if (at === from) break;
      if (isWord(u8, from, at - from, CLOSE)) this.#sawClose = true;
      else if (isWord(u8, from, at - from, KEEP_ALIVE)) this.#sawKeepAlive = true;
    }
  }

  /** RFC 9112, section 6.3: two lengths that differ, or one that is no number, make the message's end uncertain. */
  #length(u8: Uint8Array, end: number): boolean {
    let value = 0;
    let at = this.#at;
    for (; at < end && value < 1e14; at++) {
      const digit = u8[at]! - 48;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    const isBad = at < end || at === this.#at;
    if (isBad || (this.#contentLength >= 0 && this.#contentLength !== value)) {
      this.#fail(400);
      return false;
    }
    this.#contentLength = value;
    return true;
  }

  #finish(used: number): number {
    // RFC 9112, section 3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0.
    if (this.#hosts > 1 || (this.#minor >= 1 && this.#hosts === 0)) return -400;
    if (this.#isChunked && this.#contentLength >= 0) return -400;
    if (this.#isChunked || this.#contentLength > 0) this.hasBody = true;
    this.keepAlive = this.#minor >= 1 ? !this.#sawClose : this.#sawKeepAlive && !this.#sawClose;
    return used;
  }
}
