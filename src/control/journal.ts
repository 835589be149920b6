/**
 * What a daemon knows of its objects, for the daemon that comes after it: an append-only file of their states.
 *
 *   CRC {"format":"arrakis-journal","version":2}
 *   CRC ["put",KIND,ID,KEYCRC,STATE]        CRC is CRC-32C of the JSON text, 8 hexadecimal digits
 *   CRC ["delete",KIND,ID,KEYCRC]           KEYCRC is that of the text `put KIND ID`, so that a damaged record still
 *                                           says what it was about
 *
 * - A record is one write(2): whatever kills the process loses nothing that was written. There is no fsync, as the run
 *   directory does not survive the machine and neither do the objects.
 * - Cut anywhere, the whole records before the cut count. A damaged record is refused with the object that it is about;
 *   when not even that can be read, with every object that no later record describes.
 * - It is written anew, and put in place by rename(2), at every start and when it has grown large.
 */
import fs from 'node:fs';
import { crc32c } from '../base/crc32c.ts';
import { ArrakisError } from '../base/errors.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';

const FORMAT = 'arrakis-journal';
/** 1 had all names in one record, and all endpoints. */
const VERSION = 2;
const FILE_MODE = 0o600;
/** Start of a record: its key, and the checksum of that. */
const KEY =
  /^\["(put|delete)","([a-z-]{1,32})",(\d{1,16}|"[A-Za-z0-9_.@:-]{1,64}"),"([0-9a-f]{8})"/;
const ANOTHER = /\["(put|delete)",/;
const LINE = /^([0-9a-f]{8}) (.*)$/s;

export type JournalId = number | string;

/** The last state of one object. */
export interface JournalRecord {
  readonly kind: string;
  readonly id: JournalId;
  readonly state: unknown;
}

export interface JournalContent {
  readonly records: readonly JournalRecord[];
  /** What is not taken over because of damage, in words. */
  readonly refused: readonly string[];
}

const hex = (text: string): string => crc32c(Buffer.from(text)).toString(16).padStart(8, '0');

const lineOf = (value: unknown): string => {
  const json = JSON.stringify(value);
  return `${hex(json)} ${json}\n`;
};

type Op = 'put' | 'delete';

const recordLine = (op: Op, kind: string, id: JournalId, state?: unknown): string => {
  const keyCrc = hex(`${op} ${kind} ${id}`);
  return lineOf(op === 'put' ? [op, kind, id, keyCrc, state] : [op, kind, id, keyCrc]);
};

const keyOf = (kind: string, id: JournalId): string => `${kind} ${id}`;

/** The content of a journal's text. Throws ARK_UNSUPPORTED when a later version wrote it; `path` is for the message. */
export function readJournal(text: string, path: string): JournalContent {
  const records = new Map<string, JournalRecord>();
  const refused: string[] = [];
  // What comes after the last newline is a record that was cut.
  const lines = text.split('\n').slice(0, -1);
  const [header, ...rest] = lines;
  if (header === undefined) return { records: [], refused };
  if (!checkHeader(header, path)) {
    return { records: [], refused: ['the whole journal: its header is damaged'] };
  }
  for (const line of rest) {
    const json = intact(line);
    if (json !== null) apply(records, JSON.parse(json));
    else refused.push(refuse(records, line));
  }
  return { records: [...records.values()], refused };
}

/** The JSON of a line whose checksum is right, or null. */
function intact(line: string): string | null {
  const [, crc, json] = LINE.exec(line) ?? [];
  return json !== undefined && hex(json) === crc ? json : null;
}

function checkHeader(line: string, path: string): boolean {
  const json = intact(line);
  if (json === null) return false;
  const { format, version } = JSON.parse(json) as { format?: unknown; version?: unknown };
  if (format === FORMAT && version === VERSION) return true;
  throw new ArrakisError(
    'ARK_UNSUPPORTED',
    `${path} was written by another arrakisd: ${format} version ${version}, not ${FORMAT} version ${VERSION}`,
    {
      hint: `start that version of arrakis again; or give up what it describes: rm ${path}; arrakis up`,
    },
  );
}

function apply(
  records: Map<string, JournalRecord>,
  [op, kind, id, , state]: [Op, string, JournalId, string, unknown],
): void {
  const key = keyOf(kind, id);
  // A put after others moves to the end of the order in which damage counts.
  records.delete(key);
  if (op === 'put') records.set(key, { kind, id, state });
}

/** Take back what the damaged `line` may have been about; says what that was. */
function refuse(records: Map<string, JournalRecord>, line: string): string {
  const [start = '', op, kind = '', idText = '', keyCrc] = KEY.exec(line.slice(9)) ?? [];
  const id = idText.replaceAll('"', '');
  // Where the newline is what was damaged, another record follows in the same line.
  const alone = !ANOTHER.test(line.slice(9 + start.length));
  if (op !== undefined && alone && hex(`${op} ${kind} ${id}`) === keyCrc) {
    records.delete(keyOf(kind, id));
    return `${kind} ${id}: its record is damaged`;
  }
  const count = records.size;
  records.clear();
  return `${count} objects: a record that may be about any of them is damaged`;
}

export class Journal {
  readonly path: string;
  readonly #log: Log;
  /** The last line of every object. */
  readonly #lines = new Map<string, string>();
  #liveBytes = 0;
  #fd = -1;
  #bytes = 0;

  /** A journal at `path` that begins with `records`, in place of what is there. */
  constructor(path: string, records: readonly JournalRecord[], log: Log) {
    this.path = path;
    this.#log = log;
    for (const { kind, id, state } of records) {
      this.#note(keyOf(kind, id), recordLine('put', kind, id, state));
    }
    this.#rewrite();
  }

  /** The content of the file at `path`; nothing when there is none. Throws ARK_UNSUPPORTED. */
  static read(path: string): JournalContent {
    if (!fs.existsSync(path)) return { records: [], refused: [] };
    return readJournal(fs.readFileSync(path, 'utf8'), path);
  }

  /** The object has this state from now on. */
  put(kind: string, id: JournalId, state: unknown): void {
    const line = recordLine('put', kind, id, state);
    this.#note(keyOf(kind, id), line);
    this.#append(line);
  }

  /** The object is no more. Idempotent. */
  delete(kind: string, id: JournalId): void {
    const key = keyOf(kind, id);
    const line = this.#lines.get(key);
    if (line === undefined) return;
    this.#lines.delete(key);
    this.#liveBytes -= line.length;
    this.#append(recordLine('delete', kind, id));
  }

  /** Orderly end: there is nothing to take over. Idempotent. */
  remove(): void {
    this.#close();
    fs.rmSync(this.path, { force: true });
    fs.rmSync(this.#newPath, { force: true });
  }

  get #newPath(): string {
    return `${this.path}.new`;
  }

  #note(key: string, line: string): void {
    this.#liveBytes += line.length - (this.#lines.get(key)?.length ?? 0);
    this.#lines.set(key, line);
  }

  #append(line: string): void {
    const large = this.#bytes > LIMITS.journalBytesMax && this.#bytes > 2 * this.#liveBytes;
    if (this.#fd < 0 || large) {
      this.#rewrite();
      return;
    }
    try {
      const bytes = Buffer.from(line);
      if (fs.writeSync(this.#fd, bytes) !== bytes.length) throw new Error('short write');
      this.#bytes += bytes.length;
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #rewrite(): void {
    this.#close();
    try {
      const text =
        lineOf({ format: FORMAT, version: VERSION }) + [...this.#lines.values()].join('');
      fs.rmSync(this.#newPath, { force: true });
      const fd = fs.openSync(this.#newPath, 'ax', FILE_MODE);
      this.#fd = fd;
      fs.writeFileSync(fd, text);
      fs.renameSync(this.#newPath, this.path);
      this.#bytes = Buffer.byteLength(text);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  /** Half a truth is worse than none: without a journal the next daemon takes everything back. */
  #fail(error: Error): void {
    this.#close();
    fs.rmSync(this.path, { force: true });
    this.#log('error', 'the journal cannot be written: objects will not outlive this daemon', {
      error: error.message,
    });
  }

  #close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
  }
}
