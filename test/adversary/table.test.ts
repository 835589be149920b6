/** docs/adversary.md names every test of this folder, and no other. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

/** The checkout: the nearest directory above the compiled tree with a package.json. */
function checkout(): string {
  let dir = import.meta.dirname;
  while (!fs.existsSync(path.join(dir, 'package.json'))) dir = path.dirname(dir);
  return dir;
}

const FOLDER = path.join(checkout(), 'test', 'adversary');
const DOC = path.join(checkout(), 'docs', 'adversary.md');
const PLACEHOLDER = '\u0000';

/** What stands for a test's name in the sources: literals, with a hole for each value that is put in. */
function namesInSources(): string[] {
  const names: string[] = [];
  for (const file of fs.readdirSync(FOLDER).filter((name) => name.endsWith('.test.ts'))) {
    if (file === 'table.test.ts') continue;
    const text = fs.readFileSync(path.join(FOLDER, file), 'utf8');
    for (const [, , name] of text.matchAll(/\btest\((['"`])((?:(?!\1).)+)\1/g)) {
      names.push(name!.replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, PLACEHOLDER));
    }
  }
  return names;
}

/** Names in the last column of the table. */
function namesInTable(): string[] {
  const rows = fs
    .readFileSync(DOC, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| ---'))
    .slice(1);
  return rows.flatMap((row) => {
    const column = row.split(' | ').at(-1)!;
    return [...column.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
  });
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const pattern = (name: string): RegExp =>
  new RegExp(`^${name.split(PLACEHOLDER).map(escaped).join('.+')}$`);

test('every test in the table exists', () => {
  const sources = namesInSources().map(pattern);
  const table = namesInTable();
  assert.ok(table.length > 20);
  for (const name of table)
    assert.ok(
      sources.some((one) => one.test(name)),
      name,
    );
});

test('every test is in the table', () => {
  const table = namesInTable();
  const sources = namesInSources();
  assert.ok(sources.length > 20);
  for (const name of sources)
    assert.ok(
      table.some((one) => pattern(name).test(one)),
      name,
    );
});
