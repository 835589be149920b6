/** Each rule on a small made-up source, then all of them on this checkout. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  checkAll,
  checkBanned,
  checkDead,
  checkLayers,
  checkSizes,
  checkUnfinished,
  formatViolation,
  ROOT,
  readTree,
  type Source,
} from './tidy.ts';

const source = (path: string, ...lines: string[]): Source => ({ path, text: lines.join('\n') });

describe('layers', () => {
  const importing = (path: string, target: string) =>
    checkLayers(source(path, '', `import { x } from '${target}';`)).map(formatViolation);

  test('an import against the direction is named with its line', () => {
    assert.deepEqual(importing('src/base/a.ts', '../ffi/fd.ts'), [
      'src/base/a.ts:2 layers: src/base may not import src/ffi/fd.ts',
    ]);
  });

  const allowed: [string, string][] = [
    ['src/ffi/a.ts', '../base/errors.ts'],
    ['src/ffi/netlink/a.ts', '../fd.ts'],
    ['src/drivers/virtio/a.ts', '../../ring/split.ts'],
    ['src/drivers/virtio/a.ts', '../common.ts'],
    ['src/control/devices/a.ts', '../../drivers/af-xdp/attach.ts'],
    ['src/arrakis/a.ts', '../control/protocol.ts'],
    ['src/base/a.ts', 'node:fs'],
    ['apps/echo/main.ts', '../../src/arrakis/index.ts'],
    ['test/crash/a.ts', '../../src/net/udp.ts'],
    ['src/base/a.test.ts', '../../test/support/until.ts'],
  ];
  for (const [from, to] of allowed) {
    test(`${from} may import ${to}`, () => assert.deepEqual(importing(from, to), []));
  }

  const refused: [string, string][] = [
    ['src/control/devices/a.ts', '../../drivers/af-xdp/queue.ts'],
    ['src/arrakis/a.ts', '../control/plane.ts'],
    ['src/net/a.ts', '../ffi/fd.ts'],
    ['src/net/a.ts', '../drivers/virtio/queue.ts'],
    ['src/wire/a.ts', '../net/udp.ts'],
    ['src/device/a.ts', '../../test/support/until.ts'],
    ['apps/echo/main.ts', '../../src/drivers/virtio/queue.ts'],
    // "src/net" is no part of "src/networks".
    ['src/arrakis/a.ts', '../networks/a.ts'],
  ];
  for (const [from, to] of refused) {
    test(`${from} may not import ${to}`, () => assert.equal(importing(from, to).length, 1));
  }

  test('a folder that is not in the table is refused', () => {
    assert.match(importing('src/misc/a.ts', 'node:fs').join(), /src\/misc is not in the table/);
  });
});

describe('sizes', () => {
  const statements = (count: number) => Array.from({ length: count }, (_, i) => `call(${i});`);
  const sizes = (file: Source) => checkSizes(file).map(formatViolation);

  test('a file has at most 500 lines of code, a test 900', () => {
    assert.deepEqual(sizes(source('src/a/b.ts', ...statements(500))), []);
    assert.deepEqual(sizes(source('src/a/b.ts', ...statements(501))), [
      'src/a/b.ts:1 file size: 501 lines of code, at most 500',
    ]);
    assert.deepEqual(sizes(source('src/a/b.test.ts', ...statements(900))), []);
    assert.equal(sizes(source('test/a/b.ts', ...statements(901))).length, 1);
  });

  test('comments and blank lines are free', () => {
    const comments = Array.from({ length: 300 }, () => '// Why.\n\n/* What\n * for. */');
    assert.deepEqual(sizes(source('src/a/b.ts', ...comments, ...statements(500))), []);
  });

  test('a function has at most 70 lines', () => {
    const long = (inner: number) => ['', 'function long() {', ...statements(inner), '}'];
    const indented = (lines: string[]) => lines.map((line) => line.replace(/^call/, '  call'));
    assert.deepEqual(sizes(source('src/a/b.ts', ...indented(long(68)))), []);
    assert.deepEqual(sizes(source('src/a/b.ts', ...indented(long(69)))), [
      'src/a/b.ts:2 function size: long has 71 lines, at most 70',
    ]);
  });
});

describe('banned', () => {
  const rules = (path: string, ...lines: string[]) =>
    checkBanned(source(path, ...lines)).map(({ rule, line }) => `${line} ${rule}`);

  test('clocks, randomness and timers stay out of what is simulated', () => {
    const lines = [
      'const a = Date.now() + performance.now() + process.hrtime.bigint();',
      'const b = Math.random();',
      `import crypto from 'node:crypto';`,
      'setTimeout(f, 1); setInterval(f, 1);',
    ];
    const expected = ['1 clock', '1 clock', '1 clock', '2 randomness', '3 randomness'];
    for (const folder of ['src/net', 'src/persist', 'src/drivers/virtio']) {
      const found = rules(`${folder}/a.ts`, ...lines).sort();
      assert.deepEqual(found, [...expected, '4 timer', '4 timer'], folder);
      assert.deepEqual(rules(`${folder}/a.test.ts`, ...lines), []);
    }
    assert.deepEqual(rules('src/arrakis/a.ts', ...lines), []);
  });

  test('their names in comments and strings are fine', () => {
    assert.deepEqual(
      rules('src/net/a.ts', '// Never Date.now().', `const a = 'Math.random()';`),
      [],
    );
  });

  test('koffi stays in src/ffi, for tests too', () => {
    const line = `import koffi from 'koffi';`;
    assert.deepEqual(rules('src/ffi/a.ts', line), []);
    assert.deepEqual(rules('src/ring/a.ts', line), ['1 koffi']);
    assert.deepEqual(rules('test/crash/a.ts', line), ['1 koffi']);
  });

  test('processes are started by the control plane and the command line', () => {
    const line = `import { spawn } from 'node:child_process';`;
    assert.deepEqual(rules('src/control/a.ts', line), []);
    assert.deepEqual(rules('src/cli/a.ts', line), []);
    assert.deepEqual(rules('bench/a.ts', line), []);
    assert.deepEqual(rules('src/device/a.test.ts', line), []);
    assert.deepEqual(rules('src/device/a.ts', line), ['1 child_process']);
  });
});

describe('unfinished', () => {
  const rules = (...lines: string[]) =>
    checkUnfinished(source('src/a/b.test.ts', ...lines)).map(({ rule, line }) => `${line} ${rule}`);

  test('marks of unfinished work', () => {
    assert.deepEqual(rules(`// ${'TO'}DO: more`, `/* ${'FIX'}ME */`, `// ${'X'}XX`), [
      '1 unfinished',
      '2 unfinished',
      '3 unfinished',
    ]);
    assert.deepEqual(rules(`mkdtemp('/tmp/${'XX'}XXXX');`), []);
  });

  test('tests that shut out others, or are skipped without a reason', () => {
    assert.deepEqual(rules('test.only(f);', 'describe.only(f);'), [
      '1 focused test',
      '2 focused test',
    ]);
    assert.deepEqual(rules('test.skip(f);', 't.skip();', 'test({ skip: true }, f);'), [
      '1 skipped test',
      '2 skipped test',
      '3 skipped test',
    ]);
    assert.deepEqual(rules('t.skip(reason);', `test('a', { skip: reason }, f);`), []);
  });
});

describe('dead files', () => {
  const dead = (...files: Source[]) => checkDead(files).map((violation) => violation.path);

  test('what no entry reaches is dead, also when dead files import each other', () => {
    assert.deepEqual(
      dead(
        source('src/cli/main.ts', `import '../net/used.ts';`),
        source('src/net/used.ts', `export * from './deeper.ts';`),
        source('src/net/deeper.ts'),
        source('src/net/dead.ts', `import './dead-too.ts';`),
        source('src/net/dead-too.ts', `import './dead.ts';`),
      ),
      ['src/net/dead.ts', 'src/net/dead-too.ts'],
    );
  });

  test('tests, examples and what is started by name count', () => {
    assert.deepEqual(
      dead(
        source('src/net/a.test.ts', `import './a.ts';`),
        source('src/net/a.ts', `new Worker(new URL('./worker.js', import.meta.url));`),
        source('src/net/worker.ts'),
        source('examples/hello.ts', `import '../src/net/b.ts';`),
        source('src/net/b.ts'),
        source('apps/echo/main.ts', `import './options.ts';`),
        source('apps/echo/options.ts'),
      ),
      [],
    );
  });
});

test('this checkout is tidy', () => {
  const sources = readTree(ROOT);
  assert.ok(sources.some(({ path }) => path === 'tools/tidy.test.ts'));
  const lines = checkAll(sources).map(formatViolation);
  assert.equal(lines.length, 0, `\n${lines.join('\n')}`);
});
