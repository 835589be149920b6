import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPublish, parsePublish } from './spec.ts';

test('published ports as people write them', () => {
  const local = { protocol: 'tcp', address: '127.0.0.1', hostPort: 8080, port: 80 } as const;
  assert.deepEqual(parsePublish('8080:80'), local);
  assert.deepEqual(parsePublish('8080:80/tcp'), local);
  assert.deepEqual(parsePublish('0.0.0.0:1:2/udp'), {
    protocol: 'udp',
    address: '0.0.0.0',
    hostPort: 1,
    port: 2,
  });
  assert.deepEqual(parsePublish('[::1]:8080:65535'), {
    ...local,
    address: '::1',
    port: 65535,
  });
  for (const text of ['8080:80/tcp', '1.2.3.4:1:2/udp', '[::]:1:2/tcp']) {
    const spec = parsePublish(text);
    assert.deepEqual(parsePublish(formatPublish(spec)), spec);
  }
});

test('what is none is refused with the form as hint', () => {
  const bad = [
    '',
    '80',
    '80:',
    ':80',
    '0:80',
    '80:0',
    '65536:1',
    '1:2:3',
    '::1:1:2',
    'a:1:2',
    '1:2/sctp',
    '1:2 ',
    '-1:2',
  ];
  for (const text of bad) {
    assert.throws(() => parsePublish(text), { code: 'ARK_USAGE' }, text);
  }
});
