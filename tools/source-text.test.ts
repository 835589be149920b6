import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { blank, functionsOf, importsOf } from './source-text.ts';

describe('blank', () => {
  const dollar = '$';
  const cases: [name: string, text: string, expected: string][] = [
    ['a line comment', 'a; // b\nc', 'a;     \nc'],
    ['a block comment over lines', 'a /* b\nc */ d', 'a     \n     d'],
    ['quotes', `f('a"b', "c'd")`, `f('   ', "   ")`],
    ['an escaped quote', String.raw`f('a\'b') + c`, `f('    ') + c`],
    ['slashes in a string', `f('http://x') // y`, `f('        ')     `],
    ['a regular expression with a quote', `x.match(/['"/*]/) + 'a'`, `x.match(/      /) + ' '`],
    ['division is no regular expression', `a / b / c + 'x'`, `a / b / c + ' '`],
    ['a template', `\`a ${dollar}{b} c\` + d`, '`   {b}  ` + d'],
    ['braces in a template', `\`a${dollar}{f({ x: \`y\` })}z\`;`, '`  {f({ x: ` ` })} `;'],
    ['an unfinished string ends with its line', `'a\nb`, `' \nb`],
  ];
  for (const [name, text, expected] of cases) {
    test(name, () => assert.equal(blank(text, 'comments and strings'), expected));
  }

  test('strings stay when only comments go', () => {
    assert.equal(blank(`f('//'); // x`, 'comments'), `f('//');     `);
  });
});

describe('imports', () => {
  test('every form is found, with its line', () => {
    const text = [
      `import fs from 'node:fs';`,
      `import {`,
      `  a,`,
      `} from './a.ts';`,
      `import './b.ts';`,
      `export { c } from './c.ts';`,
      `const d = await import('./d.ts');`,
      `start(new URL('./e.js', import.meta.url));`,
    ].join('\n');
    const plain = [
      { specifier: 'node:fs', line: 1 },
      { specifier: './a.ts', line: 4 },
      { specifier: './c.ts', line: 6 },
      { specifier: './b.ts', line: 5 },
      { specifier: './d.ts', line: 7 },
    ];
    assert.deepEqual(importsOf(text), plain);
    assert.deepEqual(importsOf(text, true), [...plain, { specifier: './e.ts', line: 8 }]);
  });

  test('those in comments and strings are not', () => {
    assert.deepEqual(importsOf(`// import './a.ts';\nconst x = "import './b.ts';";`), []);
    assert.deepEqual(importsOf("const x = `import './b.ts'`;"), []);
  });
});

describe('functions', () => {
  const spans = (...lines: string[]) =>
    functionsOf(lines.join('\n')).map(({ name, line, lines }) => [name, line, lines]);

  test('declarations, arrows and methods are measured', () => {
    assert.deepEqual(
      spans(
        'export function a(): void {',
        '  b();',
        '}',
        'const c = (x: number): number => {',
        '  return x;',
        '};',
        'class D {',
        '  #e = 1;',
        '  static async f<T>(x: T): Promise<T> {',
        '    if (x) {',
        '      g();',
        '    }',
        '    return x;',
        '  }',
        '}',
      ),
      [
        ['a', 1, 3],
        ['c', 4, 3],
        ['f', 9, 6],
      ],
    );
  });

  test('a header over several lines belongs to the function', () => {
    assert.deepEqual(
      spans(
        'function a(',
        '  b: number,',
        '): { c: number } {',
        '  return b;',
        '}',
        'const d = (',
        '  e: number,',
        ') => {',
        '  f(e);',
        '};',
      ),
      [
        ['a', 1, 5],
        ['d', 6, 5],
      ],
    );
  });

  test('calls, one-liners and statements are not functions', () => {
    assert.deepEqual(
      spans(
        'const a = (b: number) => b + 1;',
        "  describe('x', () => {",
        '    y();',
        '  });',
        '  if (a(1)) {',
        '    y();',
        '  }',
        '  call(',
        '    1,',
        '  );',
      ),
      [],
    );
  });

  test('the lines of a template do not end a function', () => {
    assert.deepEqual(spans('function a() {', '  return `', '}', '`;', '}'), [['a', 1, 5]]);
  });
});
