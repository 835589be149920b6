/**
 * The files under one root, as a web server sees them.
 *
 * - A target is decoded once, then checked: no NUL, no `..` segment, nothing outside of the root by a symbolic link.
 * - A small file is kept whole, behind its head, ready to be copied into frames; it is looked at again after
 *   `freshMs`. A large one is opened by whoever sends it.
 * - A directory is its index.html; there is no listing.
 */
import fs from 'node:fs';
import path from 'node:path';
import { lookup } from 'mrmime';
import type { Validators } from './conditions.ts';
import { Response } from './response.ts';

/** Files up to this size are kept in memory. */
export const SMALL_BYTES_MAX = 64 * 1024;
/** Memory for them, all together. */
const CACHE_BYTES_MAX = 64 * 1024 * 1024;
const CACHE_FILES_MAX = 10_000;
const INDEX = 'index.html';

export interface FileEntry {
  readonly file: string;
  readonly size: number;
  readonly validators: Validators;
  readonly contentType: string;
  /** Head and body of a small file, for connections that stay and for those that close; null for a large one. */
  readonly keep: Response | null;
  readonly close: Response | null;
}

export type Found = FileEntry | { readonly status: number; readonly location?: string };

/** A target of the last requests, found again by its bytes: no text is made of it. */
interface Slot {
  readonly target: Buffer;
  readonly found: Found;
  readonly untilMs: number;
}

const SLOTS = 1024;

interface Cached {
  readonly found: Found;
  readonly bytes: number;
  checkedMs: number;
}

export class FileTree {
  readonly #root: string;
  readonly #freshMs: number;
  readonly #nowMs: () => number;
  /** By target, oldest first. */
  readonly #cache = new Map<string, Cached>();
  readonly #slots: (Slot | null)[] = new Array<Slot | null>(SLOTS).fill(null);
  #cachedBytes = 0;

  /** `root` is a directory; throws what `fs.realpathSync` throws. */
  constructor(root: string, nowMs: () => number, freshMs = 1000) {
    this.#root = fs.realpathSync(root);
    this.#nowMs = nowMs;
    this.#freshMs = freshMs;
  }

  /** What stands at the target in bytes `[at, end)` of `u8`. Nothing is allocated for one that was asked for just before. */
  findBytes(u8: Uint8Array, at: number, end: number): Found {
    let hash = 0;
    for (let i = at; i < end; i++) hash = (Math.imul(hash, 31) + u8[i]!) | 0;
    const index = (hash ^ (hash >>> 16)) & (SLOTS - 1);
    const slot = this.#slots[index]!;
    const nowMs = this.#nowMs();
    if (slot !== null && nowMs < slot.untilMs && isSame(slot.target, u8, at, end)) {
      return slot.found;
    }
    const target = Buffer.from(u8.subarray(at, end));
    const found = this.find(target.toString('latin1'));
    const untilMs = nowMs + this.#freshMs;
    this.#slots[index] = 'file' in found ? { target, found, untilMs } : null;
    return found;
  }

  /** What stands at `target`, a path with perhaps a query, as it came in the request. */
  find(target: string): Found {
    const cached = this.#cache.get(target);
    const nowMs = this.#nowMs();
    if (cached !== undefined) {
      if (nowMs - cached.checkedMs < this.#freshMs) return cached.found;
      if (this.#isUnchanged(cached.found)) {
        cached.checkedMs = nowMs;
        return cached.found;
      }
      this.#forget(target, cached);
    }
    const found = this.#look(target);
    // What is not there is not remembered: names are the client's to invent.
    if ('file' in found) this.#remember(target, found, nowMs);
    return found;
  }

  #look(target: string): Found {
    const query = target.indexOf('?');
    const decoded = decodePath(query < 0 ? target : target.slice(0, query));
    if (decoded === null) return { status: 400 };
    const segments = decoded.split('/');
    if (segments.includes('..')) return { status: 400 };
    const wanted = path.join(this.#root, decoded);
    try {
      const real = fs.realpathSync(wanted);
      if (real !== this.#root && !real.startsWith(this.#root + path.sep)) return { status: 403 };
      const stat = fs.statSync(real);
      if (!stat.isDirectory()) return this.#entry(real, stat, decoded.endsWith('/'));
      if (!decoded.endsWith('/')) return { status: 301, location: moved(target, query) };
      return this.#index(real);
    } catch (error) {
      return { status: statusOf(error) };
    }
  }

  #index(directory: string): Found {
    const real = fs.realpathSync(path.join(directory, INDEX));
    if (!real.startsWith(this.#root + path.sep)) return { status: 403 };
    return this.#entry(real, fs.statSync(real), false);
  }

  #entry(file: string, stat: fs.Stats, hasSlash: boolean): Found {
    if (!stat.isFile() || hasSlash) return { status: 404 };
    const { size } = stat;
    const validators = validatorsOf(stat);
    const contentType = typeOf(file);
    if (size > SMALL_BYTES_MAX) {
      fs.accessSync(file, fs.constants.R_OK);
      return { file, size, validators, contentType, keep: null, close: null };
    }
    const body = fs.readFileSync(file);
    // It changed between the two looks: its head would lie.
    if (body.length !== size) return { status: 503 };
    const [keep, close] = [true, false].map((keepAlive) => {
      const fields = { status: 200, contentLength: size, contentType, validators, keepAlive };
      const response = new Response(fields, size);
      response.bytes.set(body, response.headBytes);
      return response;
    });
    return { file, size, validators, contentType, keep: keep!, close: close! };
  }

  #isUnchanged(found: Found): boolean {
    if (!('file' in found)) return false;
    const stat = fs.statSync(found.file, { throwIfNoEntry: false });
    return (
      stat?.isFile() === true &&
      stat.size === found.size &&
      validatorsOf(stat).etag === found.validators.etag
    );
  }

  #remember(target: string, found: FileEntry, nowMs: number): void {
    const bytes = found.keep === null ? 0 : 2 * found.keep.bytes.length;
    this.#cache.set(target, { found, bytes, checkedMs: nowMs });
    this.#cachedBytes += bytes;
    for (const [oldest, cached] of this.#cache) {
      if (this.#cachedBytes <= CACHE_BYTES_MAX && this.#cache.size <= CACHE_FILES_MAX) return;
      this.#forget(oldest, cached);
    }
  }

  #forget(target: string, cached: Cached): void {
    this.#cache.delete(target);
    this.#cachedBytes -= cached.bytes;
  }
}

function isSame(target: Buffer, u8: Uint8Array, at: number, end: number): boolean {
  if (target.length !== end - at) return false;
  for (let i = 0; i < target.length; i++) if (target[i] !== u8[at + i]) return false;
  return true;
}

/** Percent-decoding (RFC 3986, section 2.1); null for what is no UTF-8, has a NUL, or does not begin at the root. */
function decodePath(text: string): string | null {
  try {
    const decoded = decodeURIComponent(text);
    return decoded.startsWith('/') && !decoded.includes('\0') ? decoded : null;
  } catch {
    return null;
  }
}

/** `//host` at the start would be another site: one slash. */
function moved(target: string, query: number): string {
  const path = query < 0 ? target : target.slice(0, query);
  const rest = query < 0 ? '' : target.slice(query);
  return `${path.replace(/^\/+/, '/')}/${rest}`;
}

function validatorsOf(stat: fs.Stats): Validators {
  const etag = `"${stat.size.toString(36)}-${Math.floor(stat.mtimeMs * 1000).toString(36)}"`;
  return { etag, modifiedS: Math.floor(stat.mtimeMs / 1000) };
}

function typeOf(file: string): string {
  const type = lookup(file) ?? 'application/octet-stream';
  return type.startsWith('text/') || type.endsWith('json') || type.endsWith('javascript')
    ? `${type}; charset=utf-8`
    : type;
}

function statusOf(error: unknown): number {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG' || code === 'ELOOP') {
    return 404;
  }
  if (code === 'EACCES' || code === 'EPERM') return 403;
  if (code === 'EMFILE' || code === 'ENFILE' || code === 'ENOMEM') return 503;
  return 500;
}
