import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { ArrakisError } from '../base/errors.ts';
import { RunDirectory } from './run-directory.ts';

const OTHER = 12345;
const refused = (error: unknown) =>
  error instanceof ArrakisError && error.code === 'ARK_NOT_PERMITTED';
const skip = process.getuid!() === 0 ? false : 'needs root';

test('a run directory whose way others could change is refused, and nothing is made', {
  skip,
}, () => {
  const top = fs.mkdtempSync(path.join(os.tmpdir(), 'run-'));
  const make = (name: string, uid: number, mode: number): string => {
    const dir = path.join(top, name);
    fs.mkdirSync(dir);
    fs.chownSync(dir, uid, uid);
    fs.chmodSync(dir, mode);
    return dir;
  };
  try {
    const [ours, theirs] = [make('ours', 0, 0o755), make('theirs', OTHER, 0o755)];
    const [open, sticky] = [make('open', 0, 0o777), make('sticky', 0, 0o1777)];
    fs.symlinkSync(theirs, path.join(ours, 'away'));
    fs.symlinkSync('../sticky', path.join(ours, 'near'));
    for (const parent of [theirs, open, path.join(ours, 'away')]) {
      assert.throws(() => RunDirectory.claim(path.join(parent, 'a', 'run')), refused, parent);
    }
    assert.deepEqual([...fs.readdirSync(theirs), ...fs.readdirSync(open)], []);
    for (const parent of [ours, sticky, path.join(ours, 'near')]) {
      RunDirectory.claim(path.join(parent, 'a', 'run')).release();
    }
    // A link of another user in a sticky directory can be replaced by its owner at any time.
    const link = path.join(sticky, 'link');
    fs.symlinkSync(ours, link);
    fs.lchownSync(link, OTHER, OTHER);
    assert.throws(() => RunDirectory.claim(path.join(link, 'run')), refused);
  } finally {
    fs.rmSync(top, { recursive: true });
  }
});

test('the directory for sockets is emptied without going into what its owner made', {
  skip,
}, () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'run-'));
  const ports = path.join(dir, 'ports');
  const directory = RunDirectory.claim(dir);
  try {
    directory.makePorts({ uid: OTHER, gid: OTHER });
    assert.equal(fs.statSync(ports).uid, OTHER);
    const keep = path.join(dir, 'keep');
    fs.writeFileSync(keep, '');
    fs.symlinkSync(keep, path.join(ports, 'link'));
    fs.writeFileSync(path.join(ports, 'file'), '');
    fs.mkdirSync(path.join(ports, 'empty'));
    directory.makePorts({ uid: OTHER, gid: OTHER });
    assert.deepEqual(fs.readdirSync(ports), []);
    assert.ok(fs.existsSync(keep));
    const inner = path.join(ports, 'full', 'inner');
    fs.mkdirSync(inner, { recursive: true });
    assert.throws(
      () => directory.makePorts(null),
      (error) => error instanceof ArrakisError && error.code === 'ARK_IN_USE',
    );
    assert.ok(fs.existsSync(inner));
  } finally {
    directory.release();
    fs.rmSync(dir, { recursive: true });
  }
});

test('nobody else may open the pid file: a reader could hold its lock against the next daemon', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'run-'));
  const pid = path.join(dir, 'arrakisd.pid');
  try {
    fs.writeFileSync(pid, '', { mode: 0o644 });
    const directory = RunDirectory.claim(dir);
    assert.equal(fs.statSync(pid).mode & 0o777, 0o600);
    directory.release();
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
