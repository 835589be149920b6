/**
 * The tree of names: directories with owners and modes, bindings, watches. Pure: no sockets, no clock, and what is bound
 * is its user's business.
 *
 * - An operation checks everything and then changes something, or throws and has changed nothing.
 * - Permission is asked before presence: who may not look into a directory does not learn what is in it.
 * - What a domain made ends with it, a directory with all that is in it.
 * - Of every change those hear who watch the directory; a watch ends with its directory or its domain.
 */
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import {
  type Binding,
  type Directory,
  may,
  mayRemove,
  type Need,
  pathOf,
  type Watch,
  type Who,
} from './node.ts';
import { parsePath } from './path.ts';

export type Node<V> = Directory | Binding<V>;
export type Change = 'made' | 'bound' | 'removed';

export interface TreeEvents<V> {
  /** `name` in the directory of `watch` changed; '' is the directory itself, and the end of the watch. */
  changed(watch: Watch, name: string, change: Change): void;
  /** It is in the tree, or another domain serves it. Before anybody is told. */
  noted(node: Node<V>): void;
  /** It is in the tree no more. Before anybody is told, and children before their directory. */
  dropped(node: Node<V>): void;
}

/** Where a path begins: the root, or the directory of a capability with that capability's rights. */
export interface Start {
  readonly directory: Directory;
  readonly rights: number | null;
}

/** What a lookup found: something here, or the directory whose server knows more about the `rest` (`/a/b`). */
export type Found<V> =
  | { readonly node: Node<V> }
  | { readonly served: Directory; readonly rest: string };

/** A node as plain JSON. Its `id` is its record's. */
export type SavedName =
  | {
      readonly path: string;
      readonly owner: number;
      readonly uid: number;
      readonly gid: number | null;
      readonly mode: number;
      readonly server: number | null;
    }
  | {
      readonly path: string;
      readonly owner: number;
      readonly uid: number;
      readonly value: unknown;
    };

interface FixedDirectory {
  readonly path: string;
  readonly mode: number;
}

export class NameTree<V> {
  readonly root: Directory;
  readonly #events: TreeEvents<V>;
  readonly #children = new Map<Directory, Map<string, Node<V>>>();
  readonly #byOwner = new Map<number, Set<Node<V>>>();
  readonly #watches = new Map<number, Watch>();
  readonly #directories = new Map<number, Directory>();
  readonly #byUid = new Map<number, number>();
  #count = 0;
  #nextId = 1;
  #nextWatch = 1;

  /** The root and `fixed`, parents first, belong to `owner`. */
  constructor(
    owner: { readonly uid: number; readonly gid: number | null },
    fixed: readonly FixedDirectory[],
    events: TreeEvents<V>,
  ) {
    this.#events = events;
    this.root = this.#addDirectory(null, '', { owner: 0, ...owner, mode: 0o755, fixed: true });
    for (const { path, mode } of fixed) {
      const { parent, name } = this.#placeIfAny(parsePath(path))!;
      this.#addDirectory(parent, name, { owner: 0, ...owner, mode, fixed: true });
    }
  }

  /** Ids from here on are not given out yet. */
  get nextId(): number {
    return this.#nextId;
  }

  /** Entries besides the fixed directories. */
  get size(): number {
    return this.#count;
  }

  /** Directory `id`, as capabilities name it, or undefined. */
  directory(id: number): Directory | undefined {
    return this.#directories.get(id);
  }

  /** The directory at `path` by the daemon's own authority, or undefined. */
  directoryAt(path: string): Directory | undefined {
    let at: Node<V> | undefined = this.root;
    for (const part of parsePath(path)) {
      if (at?.kind !== 'directory') return undefined;
      at = this.#children.get(at)!.get(part);
    }
    return at?.kind === 'directory' ? at : undefined;
  }

  /**
   * A new directory; `onMade` makes what belongs to it, before it is noted. With `keep` it does not end with its maker's
   * domain. ARK_IN_USE, ARK_LIMIT, ARK_NOT_PERMITTED, ...
   */
  make(
    who: Who,
    path: string,
    options: { mode: number; keep?: boolean },
    start: Start = this.#atRoot,
    onMade: (directory: Directory) => void = () => {},
  ): Directory {
    const { parent, name } = this.#reach(who, path, 'bind', start);
    const owner = options.keep === true ? 0 : who.domain;
    this.#checkRoom(who, owner, parent, name);
    const { uid, gid } = who;
    const made = { owner, uid, gid, mode: options.mode & 0o777, fixed: false };
    const directory = this.#addDirectory(parent, name, made);
    onMade(directory);
    this.#events.noted(directory);
    this.#tell(parent, name, 'made');
    return directory;
  }

  /** Throws what `bind` would, and changes nothing. */
  checkBind(who: Who, path: string, start: Start = this.#atRoot): void {
    const { parent, name } = this.#reach(who, path, 'bind', start);
    this.#checkRoom(who, who.domain, parent, name);
  }

  /** Name `value`, for as long as the domain lives. */
  bind(who: Who, path: string, value: V, start: Start = this.#atRoot): Binding<V> {
    const { parent, name } = this.#reach(who, path, 'bind', start);
    this.#checkRoom(who, who.domain, parent, name);
    const binding: Binding<V> = {
      kind: 'binding',
      id: this.#nextId++,
      name,
      parent,
      owner: who.domain,
      uid: who.uid,
      value,
    };
    this.#add(binding);
    this.#events.noted(binding);
    this.#tell(parent, name, 'bound');
    return binding;
  }

  lookup(who: Who, path: string, start: Start = this.#atRoot): Found<V> {
    const parts = parsePath(path);
    let at: Node<V> = start.directory;
    for (const [index, part] of parts.entries()) {
      if (at.kind !== 'directory') throw noDirectory(at);
      this.#require(who, at, 'lookup', start.rights);
      if (at.server !== null) return { served: at, rest: `/${parts.slice(index).join('/')}` };
      at = this.#child(at, part);
    }
    return { node: at };
  }

  /** What is in the directory at `path`, by name, from the first after `after`. */
  list(who: Who, path: string, after = '', start: Start = this.#atRoot): Node<V>[] {
    const directory = this.#directoryAt(who, path, start);
    this.#require(who, directory, 'list', start.rights);
    if (directory.server !== null) throw served(directory);
    return [...this.#children.get(directory)!.values()]
      .filter(({ name }) => name > after)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Take a name away, of a directory only when it is empty. */
  remove(who: Who, path: string, start: Start = this.#atRoot): void {
    this.drop(this.removable(who, path, start));
  }

  /** What `remove` would take away. */
  removable(who: Who, path: string, start: Start = this.#atRoot): Node<V> {
    const { parent, name } = this.#reach(who, path, 'remove', start);
    const node = this.#child(parent, name);
    if (!mayRemove(who, node, start.rights)) throw notPermitted('remove', node);
    if (node.kind === 'directory') {
      if (node.fixed) throw notPermitted('remove', node);
      if (this.#children.get(node)!.size > 0) {
        throw new ArrakisError('ARK_IN_USE', `${pathOf(node)} is not empty`, {
          hint: 'remove what is in it first',
        });
      }
    }
    return node;
  }

  /** Hear of changes in the directory at `path`. */
  watch(who: Who, path: string, start: Start = this.#atRoot): Watch {
    const directory = this.#directoryAt(who, path, start);
    this.#require(who, directory, 'watch', start.rights);
    if (directory.server !== null) throw served(directory);
    let own = 0;
    for (const { domain } of this.#watches.values()) if (domain === who.domain) own++;
    if (own >= LIMITS.watchesPerDomainMax) {
      throw new ArrakisError('ARK_LIMIT', `a domain has at most ${own} watches`, {
        hint: 'end one by name.unwatch',
      });
    }
    const watch: Watch = { id: this.#nextWatch++, domain: who.domain, directory };
    this.#watches.set(watch.id, watch);
    directory.watches.add(watch);
    return watch;
  }

  /** ARK_NOT_FOUND for those of others too. */
  unwatch(who: Who, id: number): void {
    const watch = this.#watches.get(id);
    if (watch === undefined || watch.domain !== who.domain) {
      throw new ArrakisError('ARK_NOT_FOUND', `there is no watch ${id} of this domain`);
    }
    this.#endWatch(watch);
  }

  /** From now on the domain answers for everything below the directory at `path`, which is its user's and empty. */
  serve(who: Who, path: string, start: Start = this.#atRoot): Directory {
    const directory = this.#directoryAt(who, path, start);
    const mine = who.privileged || (directory.uid === who.uid && !directory.fixed);
    if (!mine) throw notPermitted('serve', directory);
    if (directory.server !== null) throw served(directory);
    if (this.#children.get(directory)!.size > 0) {
      throw new ArrakisError('ARK_IN_USE', `${pathOf(directory)} is not empty`, {
        hint: 'serve a directory of its own: name.make first',
      });
    }
    directory.server = who.domain;
    this.#events.noted(directory);
    return directory;
  }

  /** Take `node` out with everything in it: whatever it names has ended. Idempotent. */
  drop(node: Node<V>): void {
    const { parent } = node;
    if (parent === null || this.#children.get(parent)?.get(node.name) !== node) return;
    if (node.kind === 'directory') {
      for (const child of [...this.#children.get(node)!.values()]) this.drop(child);
      for (const watch of [...node.watches]) {
        this.#endWatch(watch);
        this.#events.changed(watch, '', 'removed');
      }
      this.#children.delete(node);
      this.#directories.delete(node.id);
    }
    this.#children.get(parent)!.delete(node.name);
    const owned = this.#byOwner.get(node.owner)!;
    owned.delete(node);
    if (owned.size === 0) this.#byOwner.delete(node.owner);
    const ofUser = this.#byUid.get(node.uid)! - 1;
    if (ofUser === 0) this.#byUid.delete(node.uid);
    else this.#byUid.set(node.uid, ofUser);
    this.#count--;
    this.#events.dropped(node);
    this.#tell(parent, node.name, 'removed');
  }

  /** A domain has ended: so has what it made, watched and served. */
  endDomain(domain: number): void {
    for (const watch of [...this.#watches.values()]) {
      if (watch.domain === domain) this.#endWatch(watch);
    }
    for (const node of [...(this.#byOwner.get(domain) ?? [])]) this.drop(node);
    for (const directory of this.#directories.values()) {
      if (directory.server !== domain) continue;
      directory.server = null;
      this.#events.noted(directory);
    }
  }

  /** Everything but the fixed directories, parents first. */
  *all(): Generator<Node<V>> {
    const waiting: Node<V>[] = [this.root];
    for (let node = waiting.shift(); node !== undefined; node = waiting.shift()) {
      if (node.kind === 'binding' || !node.fixed) yield node;
      if (node.kind === 'directory') waiting.push(...this.#children.get(node)!.values());
    }
  }

  /**
   * Put back a node of the daemon before, parents first, which is by ascending id. Null when its value (`loadValue` gives
   * null) or the directory that it stood in is not there. Nobody is told.
   */
  restore(id: number, saved: SavedName, loadValue: (value: unknown) => V | null): Node<V> | null {
    const place = this.#placeIfAny(parsePath(saved.path));
    if (place === null) return null;
    const { parent, name } = place;
    const { owner, uid } = saved;
    this.#nextId = Math.max(this.#nextId, id + 1);
    if ('value' in saved) {
      const value = loadValue(saved.value);
      if (value === null) return null;
      const binding: Binding<V> = { kind: 'binding', id, name, parent, owner, uid, value };
      this.#add(binding);
      return binding;
    }
    const { gid, mode, server } = saved;
    const made = { id, owner, uid, gid, mode, fixed: false };
    const directory = this.#addDirectory(parent, name, made);
    directory.server = server;
    return directory;
  }

  /** Ids below were given out by the daemon before. */
  reserveIds(nextId: number): void {
    this.#nextId = Math.max(this.#nextId, nextId);
  }

  get #atRoot(): Start {
    return { directory: this.root, rights: null };
  }

  /** The directory that the last part of `path` stands in, with leave for `need` there. */
  #reach(who: Who, path: string, need: Need, start: Start): { parent: Directory; name: string } {
    const parts = parsePath(path);
    const name = parts.at(-1);
    if (name === undefined) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', '/ is there already, and stays', {
        hint: 'name something in it',
      });
    }
    const parent = this.#walk(who, parts.slice(0, -1), start);
    this.#require(who, parent, 'lookup', start.rights);
    this.#require(who, parent, need, start.rights);
    if (parent.server !== null) throw served(parent);
    return { parent, name };
  }

  #directoryAt(who: Who, path: string, start: Start): Directory {
    return this.#walk(who, parsePath(path), start);
  }

  #walk(who: Who, parts: readonly string[], start: Start): Directory {
    let at: Directory = start.directory;
    for (const part of parts) {
      this.#require(who, at, 'lookup', start.rights);
      if (at.server !== null) throw served(at);
      const next = this.#child(at, part);
      if (next.kind !== 'directory') throw noDirectory(next);
      at = next;
    }
    return at;
  }

  /** As `#reach`, without anybody's leave; null where there is no such directory, or the name is taken. */
  #placeIfAny(parts: readonly string[]): { parent: Directory; name: string } | null {
    let parent = this.root;
    for (const part of parts.slice(0, -1)) {
      const next = this.#children.get(parent)!.get(part);
      if (next?.kind !== 'directory') return null;
      parent = next;
    }
    const name = parts.at(-1)!;
    return this.#children.get(parent)!.has(name) ? null : { parent, name };
  }

  #child(directory: Directory, name: string): Node<V> {
    const node = this.#children.get(directory)!.get(name);
    if (node !== undefined) return node;
    const path = directory === this.root ? `/${name}` : `${pathOf(directory)}/${name}`;
    throw new ArrakisError('ARK_NOT_FOUND', `there is no ${path}`, {
      hint: '`arrakis name tree` shows what there is',
    });
  }

  #require(who: Who, directory: Directory, need: Need, rights: number | null): void {
    if (!may(who, directory, need, rights)) throw notPermitted(need, directory);
  }

  #checkRoom(who: Who, owner: number, parent: Directory, name: string): void {
    const siblings = this.#children.get(parent)!;
    if (siblings.has(name)) {
      throw new ArrakisError('ARK_IN_USE', `${pathOf(siblings.get(name)!)} is there already`, {
        hint: 'choose another name, or remove that one',
      });
    }
    const own = this.#byOwner.get(owner)?.size ?? 0;
    if (owner !== 0 && own >= LIMITS.namesPerDomainMax) {
      throw limit(`a domain has at most ${LIMITS.namesPerDomainMax} names`);
    }
    const ofUser = this.#byUid.get(who.uid) ?? 0;
    if (!who.privileged && ofUser >= LIMITS.namesPerUidMax) {
      throw limit(`uid ${who.uid} has ${ofUser} names, as many as one user may`);
    }
    if (siblings.size >= LIMITS.namesPerDirectoryMax) throw limit(`${pathOf(parent)} is full`);
    if (this.#count >= LIMITS.namesMax) throw limit('the tree of names is full');
  }

  #addDirectory(
    parent: Directory | null,
    name: string,
    made: Pick<Directory, 'owner' | 'uid' | 'gid' | 'mode' | 'fixed'> & { readonly id?: number },
  ): Directory {
    const directory: Directory = {
      kind: 'directory',
      id: made.id ?? this.#nextId++,
      name,
      parent,
      server: null,
      watches: new Set(),
      owner: made.owner,
      uid: made.uid,
      gid: made.gid,
      mode: made.mode,
      fixed: made.fixed,
    };
    this.#children.set(directory, new Map());
    this.#directories.set(directory.id, directory);
    if (made.fixed) {
      if (parent !== null) this.#children.get(parent)!.set(name, directory);
    } else this.#add(directory);
    return directory;
  }

  #add(node: Node<V>): void {
    this.#children.get(node.parent!)!.set(node.name, node);
    const owned = this.#byOwner.get(node.owner) ?? new Set();
    owned.add(node);
    this.#byOwner.set(node.owner, owned);
    this.#byUid.set(node.uid, (this.#byUid.get(node.uid) ?? 0) + 1);
    this.#count++;
  }

  #endWatch(watch: Watch): void {
    this.#watches.delete(watch.id);
    watch.directory.watches.delete(watch);
  }

  #tell(directory: Directory, name: string, change: Change): void {
    for (const watch of directory.watches) this.#events.changed(watch, name, change);
  }
}

const limit = (text: string): ArrakisError =>
  new ArrakisError('ARK_LIMIT', text, { hint: 'remove names that are not needed any more' });

const noDirectory = (node: { name: string; parent: Directory | null }): ArrakisError =>
  new ArrakisError('ARK_BAD_ARGUMENT', `${pathOf(node)} is no directory`, {
    hint: '`arrakis name ls` shows what is what',
  });

const notPermitted = (
  need: string,
  node: { name: string; parent: Directory | null; uid: number },
): ArrakisError =>
  new ArrakisError('ARK_NOT_PERMITTED', `${pathOf(node)} does not let this domain ${need}`, {
    hint: `it is uid ${node.uid}'s; \`arrakis name ls\` shows its mode`,
  });

const served = (directory: Directory): ArrakisError =>
  new ArrakisError(
    'ARK_UNSUPPORTED',
    `${pathOf(directory)} is served by domain ${directory.server}: it can only be looked up in`,
    { hint: 'ask that application' },
  );
