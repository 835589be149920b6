/** The name tree: paths, permissions, quotas, ends; and a long random walk beside a naive model of flat paths. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { Random } from '../../../test/support/random.ts';
import { ArrakisError } from '../../base/errors.ts';
import { RIGHTS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import { pathOf, type Who } from './node.ts';
import { parsePath } from './path.ts';
import { type Change, NameTree, type Node, type SavedName } from './tree.ts';

const ROOT: Who = { domain: 1, uid: 0, gid: 0, privileged: true };
const ALICE: Who = { domain: 2, uid: 1000, gid: 100, privileged: false };
const BOB: Who = { domain: 3, uid: 1001, gid: 100, privileged: false };
const EVE: Who = { domain: 4, uid: 1002, gid: 200, privileged: false };

let tree: NameTree<string>;
let changes: [watch: number, name: string, change: Change][];
let dropped: string[];
let notes: Map<number, SavedName>;

const saved = (node: Node<string>): SavedName => {
  const { owner, uid } = node;
  const common = { path: pathOf(node), owner, uid };
  if (node.kind === 'binding') return { ...common, value: node.value };
  const { gid, mode, server } = node;
  return { ...common, gid, mode, server };
};

function makeTree(): NameTree<string> {
  return new NameTree<string>(
    { uid: 0, gid: 0 },
    [
      { path: '/app', mode: 0o777 },
      { path: '/net', mode: 0o755 },
    ],
    {
      changed: (watch, name, change) => changes.push([watch.id, name, change]),
      noted: (node) => notes.set(node.id, saved(node)),
      dropped: (node) => {
        assert.ok(notes.delete(node.id), 'what goes was noted');
        if (node.kind === 'binding') dropped.push(node.value);
      },
    },
  );
}

beforeEach(() => {
  changes = [];
  dropped = [];
  notes = new Map();
  tree = makeTree();
});

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const throws = (expected: string, body: () => unknown) => assert.throws(body, code(expected));
const valueAt = (who: Who, path: string): string => {
  const found = tree.lookup(who, path);
  assert.ok('node' in found && found.node.kind === 'binding');
  return found.node.value;
};

test('paths that could mean two things are refused', () => {
  const bad = [
    '',
    'app',
    'app/x',
    '//',
    '//app',
    '/app/',
    '/app//x',
    '/.',
    '/..',
    '/app/../net',
    '/app/./x',
    '/app/a\0b',
    '/app/a\nb',
    '/app/\u007f',
    '/app/\ud800',
    `/${'x'.repeat(LIMITS.namePartBytesMax + 1)}`,
    `/${'é'.repeat(LIMITS.namePartBytesMax / 2 + 1)}`,
    '/a'.repeat(LIMITS.nameDepthMax + 1),
    '/a'.repeat(10_000),
    `/${'a'.repeat(1_000_000)}`,
  ];
  for (const path of bad) {
    throws('ARK_BAD_ARGUMENT', () => parsePath(path));
    throws('ARK_BAD_ARGUMENT', () => tree.lookup(ROOT, path));
  }
  assert.deepEqual(parsePath('/'), []);
  assert.deepEqual(parsePath('/app/käse/..x'), ['app', 'käse', '..x']);
});

test('names that are special to objects are names like others', () => {
  for (const name of ['__proto__', 'constructor', 'toString']) {
    throws('ARK_NOT_FOUND', () => tree.lookup(ALICE, `/app/${name}`));
    tree.bind(ALICE, `/app/${name}`, name);
    assert.equal(valueAt(BOB, `/app/${name}`), name);
  }
});

test('modes bind as for files, and who may bind may still not remove what is another user’s', () => {
  throws('ARK_NOT_PERMITTED', () => tree.bind(ALICE, '/net/x', 'x'));
  throws('ARK_NOT_PERMITTED', () => tree.make(ALICE, '/mine', { mode: 0o700 }));
  tree.bind(ALICE, '/app/a', 'a');
  throws('ARK_IN_USE', () => tree.bind(BOB, '/app/a', 'b'));
  throws('ARK_NOT_PERMITTED', () => tree.remove(BOB, '/app/a'));
  tree.make(ALICE, '/app/team', { mode: 0o750 });
  tree.bind(ALICE, '/app/team/x', 'x');
  assert.equal(valueAt(BOB, '/app/team/x'), 'x');
  throws('ARK_NOT_PERMITTED', () => tree.bind(BOB, '/app/team/y', 'y'));
  throws('ARK_NOT_PERMITTED', () => tree.lookup(EVE, '/app/team/x'));
  throws('ARK_NOT_PERMITTED', () => tree.lookup(EVE, '/app/team/is-it-there'));
  throws('ARK_NOT_PERMITTED', () => tree.list(EVE, '/app/team'));
  throws('ARK_NOT_PERMITTED', () => tree.watch(EVE, '/app/team'));
  tree.make(ALICE, '/app/blind', { mode: 0o711 });
  tree.bind(ALICE, '/app/blind/x', 'x');
  assert.equal(valueAt(EVE, '/app/blind/x'), 'x');
  throws('ARK_NOT_PERMITTED', () => tree.list(EVE, '/app/blind'));
  // A closed directory closes what is below it.
  tree.make(ALICE, '/app/team/open', { mode: 0o777 });
  throws('ARK_NOT_PERMITTED', () => tree.bind(EVE, '/app/team/open/e', 'e'));
  tree.remove(ROOT, '/app/a');
});

test('a capability for a directory carries its rights to everything below, and to nothing above', () => {
  const directory = tree.make(ALICE, '/app/kv', { mode: 0o700 });
  tree.make(ALICE, '/app/kv/sub', { mode: 0o700 });
  tree.bind(ALICE, '/app/kv/sub/x', 'x');
  const start = { directory, rights: RIGHTS.directory.lookup };
  assert.ok('node' in tree.lookup(EVE, '/sub/x', start));
  throws('ARK_NOT_PERMITTED', () => tree.list(EVE, '/sub', '', start));
  throws('ARK_NOT_PERMITTED', () => tree.bind(EVE, '/sub/y', 'y', start));
  throws('ARK_NOT_FOUND', () => tree.lookup(EVE, '/app', start));
  throws('ARK_BAD_ARGUMENT', () => tree.lookup(EVE, '/..', start));
  const all = { directory, rights: 63 };
  tree.bind(EVE, '/sub/y', 'y', all);
  tree.remove(EVE, '/sub/x', all);
  assert.deepEqual(dropped, ['x']);
});

test('what is fixed stays, and only an empty directory goes', () => {
  for (const path of ['/app', '/net']) throws('ARK_NOT_PERMITTED', () => tree.remove(ROOT, path));
  throws('ARK_BAD_ARGUMENT', () => tree.remove(ROOT, '/'));
  tree.make(ALICE, '/app/d', { mode: 0o755 });
  tree.bind(ALICE, '/app/d/x', 'x');
  throws('ARK_IN_USE', () => tree.remove(ALICE, '/app/d'));
  throws('ARK_BAD_ARGUMENT', () => tree.bind(ALICE, '/app/d/x/y', 'y'));
  tree.remove(ALICE, '/app/d/x');
  tree.remove(ALICE, '/app/d');
  assert.equal(tree.size, 0);
});

test('a domain’s end takes what it made, with all that is in it, and watchers hear', () => {
  tree.make(ALICE, '/app/d', { mode: 0o777 });
  tree.bind(BOB, '/app/d/bob', 'bob');
  tree.bind(ALICE, '/app/alice', 'alice');
  tree.make(ROOT, '/net/kept', { mode: 0o755, keep: true });
  const top = tree.watch(EVE, '/app').id;
  const below = tree.watch(EVE, '/app/d').id;
  tree.watch(ALICE, '/app');
  tree.endDomain(ALICE.domain);
  assert.deepEqual(dropped, ['bob', 'alice']);
  assert.deepEqual(changes, [
    [below, 'bob', 'removed'],
    [below, '', 'removed'],
    [top, 'd', 'removed'],
    [top, 'alice', 'removed'],
  ]);
  tree.endDomain(ROOT.domain);
  assert.equal(tree.size, 1, 'what is kept outlives its maker');
  throws('ARK_NOT_FOUND', () => tree.unwatch(EVE, below));
  throws('ARK_NOT_FOUND', () => tree.unwatch(BOB, top));
  tree.unwatch(EVE, top);
});

test('a served directory gives the rest of the path, and nothing else works below it', () => {
  tree.make(ALICE, '/app/kv', { mode: 0o755 });
  throws('ARK_NOT_PERMITTED', () => tree.serve(BOB, '/app/kv'));
  throws('ARK_NOT_PERMITTED', () => tree.serve(ALICE, '/app'));
  const directory = tree.serve(ALICE, '/app/kv');
  assert.deepEqual(tree.lookup(BOB, '/app/kv/a/b'), { served: directory, rest: '/a/b' });
  assert.deepEqual(tree.lookup(BOB, '/app/kv'), { node: directory });
  for (const body of [
    () => tree.list(ALICE, '/app/kv'),
    () => tree.watch(ALICE, '/app/kv'),
    () => tree.bind(ALICE, '/app/kv/x', 'x'),
    () => tree.make(ALICE, '/app/kv/a/b', { mode: 0o755 }),
    () => tree.serve(ROOT, '/app/kv'),
  ]) {
    throws('ARK_UNSUPPORTED', body);
  }
  tree.make(ALICE, '/app/full', { mode: 0o755 });
  tree.bind(ALICE, '/app/full/x', 'x');
  throws('ARK_IN_USE', () => tree.serve(ALICE, '/app/full'));
});

test('quotas hold, and what is given up is free again', () => {
  for (let n = 0; n < LIMITS.namesPerDomainMax; n++) tree.bind(ALICE, `/app/${n}`, '');
  throws('ARK_LIMIT', () => tree.bind(ALICE, '/app/more', ''));
  tree.bind(BOB, '/app/bob', '');
  tree.remove(ALICE, '/app/0');
  tree.bind(ALICE, '/app/more', '');
  for (let n = 0; n < LIMITS.watchesPerDomainMax; n++) tree.watch(EVE, '/app');
  throws('ARK_LIMIT', () => tree.watch(EVE, '/app'));
});

test('a list is in order and goes on after a name', () => {
  for (const name of ['b', 'a', 'c']) tree.bind(ALICE, `/app/${name}`, name);
  const names = (after?: string) => tree.list(BOB, '/app', after).map((node) => node.name);
  assert.deepEqual(names(), ['a', 'b', 'c']);
  assert.deepEqual(names('a'), ['b', 'c']);
  assert.deepEqual(
    tree.list(ALICE, '/').map((node) => node.name),
    ['app', 'net'],
  );
});

/** The naive model: one flat map of paths. */
interface Entry {
  directory: boolean;
  owner: number;
  uid: number;
  gid: number | null;
  mode: number;
  fixed: boolean;
}

class Model {
  readonly entries = new Map<string, Entry>();

  constructor() {
    const fixed = { directory: true, owner: 0, uid: 0, gid: 0, fixed: true };
    this.entries.set('', { ...fixed, mode: 0o755 });
    this.entries.set('/app', { ...fixed, mode: 0o777 });
    this.entries.set('/net', { ...fixed, mode: 0o755 });
  }

  may(who: Who, path: string, bit: number): boolean {
    const { uid, gid, mode } = this.entries.get(path)!;
    const shift = uid === who.uid ? 6 : gid === who.gid ? 3 : 0;
    return who.privileged || ((mode >> shift) & bit) !== 0;
  }

  /** Code of what stops `who` on the way into `path`'s directory, or null. */
  way(who: Who, path: string): string | null {
    const parts = path.split('/').slice(1, -1);
    let at = '';
    for (const part of parts) {
      if (!this.may(who, at, 1)) return 'ARK_NOT_PERMITTED';
      at += `/${part}`;
      const entry = this.entries.get(at);
      if (entry === undefined) return 'ARK_NOT_FOUND';
      if (!entry.directory) return 'ARK_BAD_ARGUMENT';
    }
    return this.may(who, at, 1) ? null : 'ARK_NOT_PERMITTED';
  }

  add(who: Who, path: string, directory: boolean, mode: number): string {
    const stopped = this.way(who, path);
    if (stopped !== null) return stopped;
    const parent = path.slice(0, path.lastIndexOf('/'));
    if (!this.may(who, parent, 2)) return 'ARK_NOT_PERMITTED';
    if (this.entries.has(path)) return 'ARK_IN_USE';
    const { domain: owner, uid, gid } = who;
    this.entries.set(path, { directory, owner, uid, gid, mode, fixed: false });
    return 'ok';
  }

  under(path: string): string[] {
    return [...this.entries.keys()].filter((key) => key.startsWith(`${path}/`));
  }

  remove(who: Who, path: string): string {
    const stopped = this.way(who, path);
    if (stopped !== null) return stopped;
    const parent = path.slice(0, path.lastIndexOf('/'));
    if (!this.may(who, parent, 2)) return 'ARK_NOT_PERMITTED';
    const entry = this.entries.get(path);
    if (entry === undefined) return 'ARK_NOT_FOUND';
    const mine = [entry.uid, this.entries.get(parent)!.uid].includes(who.uid);
    if (!(who.privileged || mine) || entry.fixed) return 'ARK_NOT_PERMITTED';
    if (this.under(path).length > 0) return 'ARK_IN_USE';
    this.entries.delete(path);
    return 'ok';
  }

  list(who: Who, path: string): string {
    const stopped = this.way(who, `${path}/x`);
    // The directory itself is read, not passed.
    const entry = this.entries.get(path);
    if (stopped !== null && !(entry?.directory === true && this.way(who, path) === null))
      return stopped;
    if (!this.may(who, path, 4)) return 'ARK_NOT_PERMITTED';
    return this.under(path)
      .filter((key) => !key.slice(path.length + 1).includes('/'))
      .sort()
      .join(' ');
  }

  end(domain: number): void {
    for (const [path, entry] of [...this.entries]) {
      if (entry.owner !== domain || !this.entries.has(path)) continue;
      for (const below of this.under(path)) this.entries.delete(below);
      this.entries.delete(path);
    }
  }
}

const outcome = (body: () => unknown): string => {
  try {
    body();
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof ArrakisError, String(error));
    return error.code;
  }
};

function randomPath(random: Random): string {
  let path = random.pick(['/app', '/app', '/app', '/net', '']);
  for (let depth = 0; depth <= random.below(3); depth++) path += `/${random.pick(['a', 'b', 'c'])}`;
  return path;
}

test('a random walk agrees with flat paths', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    notes = new Map();
    tree = makeTree();
    const model = new Model();
    const whos = [ROOT, ALICE, BOB, EVE];
    let succeeded = 0;
    for (let n = 0; n < 1500; n++) {
      const who = random.pick(whos);
      const path = randomPath(random);
      const mode = random.pick([0o777, 0o755, 0o750, 0o700, 0o711, 0o222]);
      const dice = random.below(20);
      const step = `seed ${seed}, step ${n}: ${who.uid} ${path} ${dice}`;
      if (dice < 6) {
        const got = outcome(() => tree.make(who, path, { mode }));
        assert.equal(got, model.add(who, path, true, mode), step);
        if (got === 'ok') succeeded++;
      } else if (dice < 10) {
        assert.equal(
          outcome(() => tree.bind(who, path, path)),
          model.add(who, path, false, 0),
          step,
        );
      } else if (dice < 14) {
        assert.equal(
          outcome(() => tree.remove(who, path)),
          model.remove(who, path),
          step,
        );
      } else if (dice < 19) {
        let listed = '';
        const got = outcome(() => {
          const base = path === '/' ? '' : path;
          listed = tree
            .list(who, path)
            .map((node) => `${base}/${node.name}`)
            .join(' ');
        });
        assert.equal(got === 'ok' ? listed : got, model.list(who, path), step);
      } else if (random.oneIn(4)) {
        tree.endDomain(who.domain);
        model.end(who.domain);
      }
      assert.equal(tree.size, model.entries.size - 3, step);
    }
    assert.ok(succeeded > 20);
    const copy = makeTree();
    const records = [...notes].sort(([a], [b]) => a - b);
    for (const [id, record] of records) assert.ok(copy.restore(id, record, String));
    const all = (of: NameTree<string>) =>
      [...of.all()].map((node) => [node.id, saved(node)] as const).sort(([a], [b]) => a - b);
    assert.deepEqual(all(copy), all(tree));
    assert.deepEqual(records, all(tree), 'one record for each, and no other');
    assert.equal(copy.size, tree.size);
    assert.ok(copy.nextId > Math.max(...notes.keys()), 'no number is given out again');
  }
});
