import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { HEAD_BYTES_MAX, METHOD, RequestHead, type Span } from './request.ts';

const head = new RequestHead();
const parse = (text: string): number => {
  const bytes = Buffer.from(text, 'latin1');
  return head.parse(bytes, 0, bytes.length);
};
const textOf = (text: string, { at, end }: Span): string | null =>
  at < 0 ? null : text.slice(at, end);

/** Each head is parsed whole, behind other bytes, and with every shorter prefix, which must ask for more. */
function whole(text: string): number {
  for (let n = 0; n < text.length; n++) {
    assert.equal(parse(text.slice(0, n)), 0, `${n} of ${text.length} bytes are not enough`);
  }
  const shifted = Buffer.from(`xx${text}GET`, 'latin1');
  const used = head.parse(shifted, 2, shifted.length);
  assert.equal(used, text.length);
  assert.equal(parse(text), text.length);
  return used;
}

/** A head that is refused is refused at once or later with more bytes, never taken. */
function refused(text: string, status: number): void {
  for (let n = 0; n < text.length; n++) {
    assert.ok(
      [0, -status].includes(parse(text.slice(0, n))),
      `${n} bytes: ${parse(text.slice(0, n))}`,
    );
  }
  assert.equal(parse(text), -status);
}

describe('request head', () => {
  test('the shortest ones', () => {
    whole('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(head.method, METHOD.get);
    assert.ok(head.keepAlive);
    assert.ok(!head.hasBody);
    whole('HEAD /x?y=%20z HTTP/1.0\r\n\r\n');
    assert.equal(head.method, METHOD.head);
    assert.equal(textOf('HEAD /x?y=%20z HTTP/1.0', head.target), '/x?y=%20z');
    assert.ok(!head.keepAlive, 'HTTP/1.0 closes');
  });

  test('an empty line before it is passed over, once', () => {
    assert.equal(parse('\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n'), 29);
    assert.equal(parse('\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n'), -400);
  });

  test('fields of interest, in any case, without the white space around them', () => {
    const text =
      'GET /f HTTP/1.1\r\nHOST:a\r\nrAnGe: \t bytes=0-1 \t\r\nIf-Range: "x"\r\nif-none-match: *\r\n' +
      'If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Other: y\r\nempty:\r\n\r\n';
    whole(text);
    assert.equal(textOf(text, head.range), 'bytes=0-1');
    assert.equal(textOf(text, head.ifRange), '"x"');
    assert.equal(textOf(text, head.ifNoneMatch), '*');
    assert.equal(textOf(text, head.ifModifiedSince), 'Sun, 06 Nov 1994 08:49:37 GMT');
    whole('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(head.range.at, -1, 'nothing stays of the request before');
  });

  test('who closes', () => {
    const of = (fields: string, version = '1.1'): boolean => {
      assert.ok(parse(`GET / HTTP/${version}\r\nHost: a\r\n${fields}\r\n`) > 0);
      return head.keepAlive;
    };
    assert.ok(!of('Connection: close\r\n'));
    assert.ok(!of('connection: upgrade , Close\r\n'));
    assert.ok(of('Connection: closed\r\n'));
    assert.ok(of('Connection: Keep-Alive\r\n', '1.0'));
    assert.ok(!of('Connection: keep-alive, close\r\n', '1.0'));
  });

  test('absolute targets', () => {
    const text = 'GET http://host:80/a/b?c HTTP/1.1\r\nHost: a\r\n\r\n';
    whole(text);
    assert.equal(textOf(text, head.target), '/a/b?c');
    whole('GET http://host HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(head.target.at, -2, 'the root');
    whole('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(head.method, METHOD.other);
    refused('GET a/b HTTP/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET * HTTP/1.1\r\nHost: a\r\n\r\n'.replace('*', 'ftp://a/'), 400);
  });

  test('bodies', () => {
    const has = (fields: string): boolean => {
      assert.ok(parse(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`) > 0);
      return head.hasBody;
    };
    assert.ok(has('Content-Length: 5\r\n'));
    assert.ok(has('Transfer-Encoding: chunked\r\n'));
    assert.ok(!has('Content-Length: 0\r\nContent-Length: 0\r\n'));
    for (const bad of ['-1', '', '1 2', '0x1', '99999999999999999999', '+1']) {
      refused(`GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ${bad}\r\n\r\n`, 400);
    }
    refused('GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n', 400);
  });

  test('what is no request', () => {
    refused(' GET / HTTP/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET  / HTTP/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET / HTTP/1.1\nHost: a\n\n\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\r\nHost: a\r\n\r\n', 400);
    refused('G\0T / HTTP/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET / HTTP/2.0\r\nHost: a\r\n\r\n', 505);
    refused('GET / HTTQ/1.1\r\nHost: a\r\n\r\n', 400);
    refused('GET / HTTP/1.x\r\nHost: a\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost : a\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\0\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n', 400);
    refused('GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n', 400);
  });

  test('too long', () => {
    assert.equal(parse(`GET /${'a'.repeat(HEAD_BYTES_MAX)}`), -414);
    assert.equal(parse(`GET /${'a'.repeat(4096)} HTTP/1.1\r\nHost: a\r\n\r\n`), -414);
    assert.equal(parse(`GET / HTTP/1.1\r\nHost: ${'a'.repeat(HEAD_BYTES_MAX)}`), -431);
    assert.equal(parse(`GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(101)}\r\n`), -431);
    assert.equal(parse('x'.repeat(HEAD_BYTES_MAX)), -414);
  });

  test('any bytes: a count within them, more, or a status', () => {
    const piece = fc.constantFrom(
      'GET',
      ' ',
      '/',
      'HTTP/1.1',
      '\r\n',
      '\r',
      '\n',
      'Host',
      ':',
      'a',
      '\0',
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof(piece, fc.string({ maxLength: 3 })), { maxLength: 30 }),
        (all) => {
          const text = all.join('');
          const used = parse(text);
          assert.ok(used <= Buffer.byteLength(text, 'latin1'));
          assert.ok(used >= 0 || [-400, -414, -431, -505].includes(used));
        },
      ),
      { numRuns: 20_000 },
    );
  });
});
