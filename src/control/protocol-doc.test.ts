import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { protocolDocument } from './protocol-doc.ts';

/** The checkout: the nearest directory above the compiled tree with a package.json. */
function checkout(): string {
  let dir = import.meta.dirname;
  while (!fs.existsSync(path.join(dir, 'package.json'))) dir = path.dirname(dir);
  return dir;
}

test('docs/protocol.md is what the table says (ARRAKIS_UPDATE_DOCS=1 rewrites it)', () => {
  const file = path.join(checkout(), 'docs', 'protocol.md');
  const current = protocolDocument();
  if (process.env.ARRAKIS_UPDATE_DOCS === '1') fs.writeFileSync(file, current);
  assert.equal(fs.readFileSync(file, 'utf8'), current);
});

test('every operation and its fields are in it', () => {
  const text = protocolDocument();
  assert.match(text, /### vnic\.open/);
  assert.match(text, /\| `spec\.device` \| string/);
  assert.match(text, /\| `filters` \| array of string/);
  assert.match(text, /\| `ARK_IN_USE` \|/);
});
