/** Response heads (RFC 9112, section 4) as bytes, with the date where it can be renewed in place. */
import type { Validators } from './conditions.ts';

const REASONS: Readonly<Record<number, string>> = {
  200: 'OK',
  206: 'Partial Content',
  301: 'Moved Permanently',
  304: 'Not Modified',
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  414: 'URI Too Long',
  416: 'Range Not Satisfiable',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  505: 'HTTP Version Not Supported',
};

/** A date is always this long (RFC 9110, section 5.6.7). */
const DATE_LEN = 'Sun, 06 Nov 1994 08:49:37 GMT'.length;
const DATE_NAME = 'Date: ';

/** The date of now, as bytes, made once a second. */
export class HttpDate {
  readonly bytes = Buffer.alloc(DATE_LEN);
  /** Whole seconds since 1970 that `bytes` says. */
  second = -1;
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.renew();
  }

  /** Call before `bytes` is used. */
  renew(): void {
    const second = Math.floor(this.#nowMs() / 1000);
    if (second === this.second) return;
    this.second = second;
    this.bytes.write(formatDate(second), 0, 'latin1');
  }
}

export const formatDate = (second: number): string => new Date(second * 1000).toUTCString();

export interface HeadFields {
  readonly status: number;
  readonly contentLength: number;
  readonly contentType?: string;
  readonly validators?: Validators;
  readonly contentRange?: string;
  readonly location?: string;
  readonly keepAlive: boolean;
}

/** A head, and after it room for the first `bodyBytes` of the body. */
export class Response {
  readonly bytes: Buffer;
  readonly headBytes: number;
  readonly #dateAt: number;
  #second = -1;

  constructor(fields: HeadFields, bodyBytes = 0) {
    const text = headText(fields);
    this.headBytes = text.length;
    this.bytes = Buffer.alloc(text.length + bodyBytes);
    this.bytes.write(text, 0, 'latin1');
    this.#dateAt = text.indexOf(DATE_NAME) + DATE_NAME.length;
  }

  /** Put the date of now in, if it is another than before. */
  dateIt(date: HttpDate): void {
    if (this.#second === date.second) return;
    this.#second = date.second;
    this.bytes.set(date.bytes, this.#dateAt);
  }
}

function headText(fields: HeadFields): string {
  const { status, contentLength, validators } = fields;
  const lines = [
    `HTTP/1.1 ${status} ${REASONS[status] ?? 'Status'}`,
    'Server: arrakis',
    `${DATE_NAME}${' '.repeat(DATE_LEN)}`,
  ];
  if (status !== 304) lines.push(`Content-Length: ${contentLength}`);
  if (fields.contentType !== undefined) lines.push(`Content-Type: ${fields.contentType}`);
  if (validators !== undefined) {
    lines.push(`Last-Modified: ${formatDate(validators.modifiedS)}`, `ETag: ${validators.etag}`);
    if (status === 200 || status === 206) lines.push('Accept-Ranges: bytes');
  }
  if (fields.contentRange !== undefined) lines.push(`Content-Range: ${fields.contentRange}`);
  if (fields.location !== undefined) lines.push(`Location: ${fields.location}`);
  if (status === 405) lines.push('Allow: GET, HEAD');
  lines.push(fields.keepAlive ? 'Connection: keep-alive' : 'Connection: close');
  return `${lines.join('\r\n')}\r\n\r\n`;
}

const refusals = new Map<string, Response>();

/** A short page that says what was wrong; made once for each status. `body` false: for HEAD. */
export function refusal(status: number, keepAlive: boolean, body: boolean): Response {
  const key = `${status} ${keepAlive} ${body}`;
  const known = refusals.get(key);
  if (known !== undefined) return known;
  const text = `${status} ${REASONS[status] ?? ''}\n`;
  const contentType = 'text/plain; charset=utf-8';
  const fields = { status, contentLength: text.length, contentType, keepAlive };
  const response = new Response(fields, body ? text.length : 0);
  if (body) response.bytes.write(text, response.headBytes, 'latin1');
  refusals.set(key, response);
  return response;
}
