import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { crc32c } from '../base/crc32c.ts';
import { ArrakisError } from '../base/errors.ts';
import { Journal, type JournalRecord, readJournal } from './journal.ts';
import { LIMITS } from './limits.ts';

let dir: string;
let file: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'journal-'));
  file = path.join(dir, 'journal');
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

const open = (records: readonly JournalRecord[] = []): Journal =>
  new Journal(file, records, (_level, message) => assert.fail(message));
const names = (text: string): string[] =>
  readJournal(text, file).records.map(({ kind, id, state }) => `${kind} ${id} ${state}`);
const text = (): string => fs.readFileSync(file, 'utf8');

/** Five records over three objects. */
function fill(): string[] {
  const journal = open();
  journal.put('domain', 1, 'first');
  journal.put('vnic', 2, 'closed');
  journal.put('device', 'eth0', 'up');
  journal.put('vnic', 2, 'open');
  journal.delete('domain', 1);
  return text().split('\n').slice(0, -1);
}

test('what was put last counts, also for the next journal', () => {
  fill();
  assert.deepEqual(names(text()), ['device eth0 up', 'vnic 2 open']);
  const { records, refused } = Journal.read(file);
  assert.deepEqual(refused, []);
  open(records).put('vnic', 3, 'new');
  assert.deepEqual(names(text()), ['device eth0 up', 'vnic 2 open', 'vnic 3 new']);
});

test('cut at any byte, the whole records before it count', () => {
  const lines = fill();
  const states = [
    [],
    [],
    ['domain 1 first'],
    ['domain 1 first', 'vnic 2 closed'],
    ['domain 1 first', 'vnic 2 closed', 'device eth0 up'],
    ['domain 1 first', 'device eth0 up', 'vnic 2 open'],
    ['device eth0 up', 'vnic 2 open'],
  ];
  const whole = text();
  for (let at = 0; at <= whole.length; at++) {
    const cut = whole.slice(0, at);
    assert.deepEqual(names(cut), states[cut.split('\n').length - 1], `cut at ${at}`);
    assert.deepEqual(readJournal(cut, file).refused, []);
  }
  assert.equal(lines.length, 6);
});

test('a flipped bit never brings back an older state, nor anything that was not written', () => {
  fill();
  const whole = text();
  const possible = new Set(['device eth0 up', 'vnic 2 open']);
  const bytes = Buffer.from(whole, 'latin1');
  for (let at = 0; at < bytes.length * 8; at++) {
    bytes[at >> 3]! ^= 1 << (at & 7);
    const damaged = bytes.toString('latin1');
    const { refused } = readJournal(damaged, file);
    for (const name of names(damaged)) {
      // The last newline alone: the record before it was cut, and is the deletion of the domain.
      const cut = at >> 3 === bytes.length - 1 && name === 'domain 1 first';
      assert.ok(possible.has(name) || cut, `bit ${at}: ${name}`);
    }
    assert.ok(refused.length > 0 || at >> 3 === bytes.length - 1, `bit ${at} was noticed`);
    bytes[at >> 3]! ^= 1 << (at & 7);
  }
});

test('a damaged state takes its own object along and no other', () => {
  fill();
  const damaged = text().replace('"open"', '"opem"');
  const { records, refused } = readJournal(damaged, file);
  assert.deepEqual(refused, ['vnic 2: its record is damaged']);
  assert.deepEqual(
    records.map(({ kind }) => kind),
    ['device'],
  );
});

// The one before noted all names at once.
for (const version of [1, 3]) {
  test(`version ${version} is refused with the way out, and left alone`, () => {
    const header = `{"format":"arrakis-journal","version":${version}}`;
    const later = `${crc32c(Buffer.from(header)).toString(16).padStart(8, '0')} ${header}\n`;
    fs.writeFileSync(file, later);
    assert.throws(
      () => Journal.read(file),
      (error) =>
        error instanceof ArrakisError &&
        error.code === 'ARK_UNSUPPORTED' &&
        error.message.includes(file) &&
        error.hint!.includes(`rm ${file}`),
    );
    assert.equal(text(), later);
  });
}

test('it does not grow without bound', () => {
  const journal = open();
  const state = 'x'.repeat(1000);
  for (let n = 0; n < (3 * LIMITS.journalBytesMax) / 1000; n++) journal.put('vnic', n % 7, state);
  assert.ok(fs.statSync(file).size <= LIMITS.journalBytesMax + 2000);
  assert.equal(Journal.read(file).records.length, 7);
  assert.deepEqual(fs.readdirSync(dir), ['journal']);
  journal.remove();
  assert.deepEqual(fs.readdirSync(dir), []);
});

test('one that cannot be written is taken away rather than left half true', () => {
  const messages: string[] = [];
  const place = path.join(dir, 'deeper');
  fs.mkdirSync(place);
  const journal = new Journal(path.join(place, 'journal'), [], (_level, message) => {
    messages.push(message);
  });
  fs.rmSync(place, { recursive: true });
  for (let n = 0; n < (2 * LIMITS.journalBytesMax) / 1000; n++) {
    journal.put('vnic', 1, 'x'.repeat(1000));
  }
  assert.ok(messages.length > 0);
  fs.mkdirSync(place);
  journal.put('vnic', 2, 'here');
  assert.equal(Journal.read(path.join(place, 'journal')).records.length, 2);
  journal.remove();
});
