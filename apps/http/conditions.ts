/** Conditional and range requests (RFC 9110, sections 13 and 14), on text: they are rare enough to allocate. */

/** What a response says of its file: a strong entity tag, and when it last changed, in whole seconds. */
export interface Validators {
  /** With its quotes. */
  readonly etag: string;
  readonly modifiedS: number;
}

/** Seconds since 1970 of an HTTP date, or NaN. Only the form that everybody sends (RFC 9110, section 5.6.7). */
export function parseHttpDate(text: string): number {
  if (!/^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(text))
    return Number.NaN;
  return Date.parse(text) / 1000;
}

/** Weak comparison (section 8.8.3.2) with each tag of a list, or `*`. */
function matchesAny(list: string, etag: string): boolean {
  if (list.trim() === '*') return true;
  const tags = list.match(/(?:W\/)?"[^"]*"/g) ?? [];
  return tags.some((tag) => tag.replace(/^W\//, '') === etag);
}

/** True when the client has this version already: 304. If-None-Match goes before the date (section 13.2.2). */
export function isFresh(
  validators: Validators,
  ifNoneMatch: string | null,
  ifModifiedSince: string | null,
): boolean {
  if (ifNoneMatch !== null) return matchesAny(ifNoneMatch, validators.etag);
  if (ifModifiedSince === null) return false;
  return validators.modifiedS <= parseHttpDate(ifModifiedSince);
}

export interface ByteRange {
  readonly first: number;
  /** The byte after the last one. */
  readonly end: number;
}

/**
 * The part of `size` bytes that `range` asks for. Null: send all of it, as of a unit that we do not know, several ranges
 * (section 14.2 lets us), or a file that changed since `ifRange`. 'unsatisfiable': 416.
 */
export function selectRange(
  range: string,
  ifRange: string | null,
  size: number,
  validators: Validators,
): ByteRange | null | 'unsatisfiable' {
  if (ifRange !== null && !isSameVersion(ifRange, validators)) return null;
  const match = /^bytes=(\d*)-(\d*)$/i.exec(range.replace(/[ \t]/g, ''));
  if (match === null) return null;
  const [, from = '', to = ''] = match;
  if (from === '') {
    if (to === '') return null;
    const length = Math.min(Number(to), size);
    return length === 0 ? 'unsatisfiable' : { first: size - length, end: size };
  }
  const first = Number(from);
  const last = to === '' ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== '' && Number(to) < first) return null;
  return first >= size ? 'unsatisfiable' : { first, end: last + 1 };
}

/** Section 13.1.5: a strong tag, or exactly the date. */
function isSameVersion(ifRange: string, validators: Validators): boolean {
  if (ifRange.startsWith('"')) return ifRange === validators.etag;
  return parseHttpDate(ifRange) === validators.modifiedS;
}
