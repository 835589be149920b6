/**
 * The capability space: every capability of every domain, as a forest. Pure: no sockets, no clock.
 *
 *   mint ─► root ──derive──► child ──derive (for another domain: grant)──► grandchild ...
 *
 * - Along an edge rights and ranges only shrink.
 * - Removing a capability removes all that was derived from it; whatever exists by its authority hears of it once,
 *   after the forest has changed, leaves first.
 * - Ids count up and are never used again. An id of another holder is as absent as one that never was.
 * - From a capability under revocation, or from what was derived from it, nothing new can be made.
 */
import { assert } from '../../base/assert.ts';
import { ArrakisError } from '../../base/errors.ts';
import { checkRange, formatRange, type Range, rangeCovers } from './range.ts';
import { allRights, type CapKind, GRANT, rightNames } from './rights.ts';

export type { Range } from './range.ts';
export type { CapKind } from './rights.ts';

export interface Capability {
  readonly id: number;
  /** Id of the domain that has it; 0 is the daemon. */
  readonly holder: number;
  readonly kind: CapKind;
  /** What it is for: `soft0`, `vnic:12`, `region:7`. */
  readonly object: string;
  /** Bits of RIGHTS[kind]. */
  readonly rights: number;
  readonly range: Range;
  /** Null: given by the control plane itself. */
  readonly parent: Capability | null;
}

export interface CapLimits {
  /** Capabilities that one domain may have made, for itself and for others: gifts do not fill the receiver's account. */
  readonly madeMax: number;
  /** Length of a chain of derivations. */
  readonly depthMax: number;
}

class Node implements Capability {
  readonly id: number;
  readonly holder: number;
  readonly kind: CapKind;
  readonly object: string;
  readonly rights: number;
  readonly range: Range;
  readonly parent: Node | null;
  readonly depth: number;
  readonly children = new Set<Node>();
  readonly callbacks = new Set<() => void>();
  /** Revocations under way that started here. */
  revocations = 0;

  constructor(id: number, made: NewNode) {
    this.id = id;
    this.holder = made.holder;
    this.kind = made.kind;
    this.object = made.object;
    this.rights = made.rights;
    this.range = made.range;
    this.parent = made.parent;
    this.depth = made.parent === null ? 1 : made.parent.depth + 1;
  }
}

/** Is told of every change, while it is made: must neither throw nor call back. */
export interface CapObserver {
  added(saved: SavedCapability): void;
  removed(id: number): void;
}

type NewNode = Pick<Node, 'holder' | 'kind' | 'object' | 'rights' | 'range' | 'parent'>;

/** A space as plain JSON. */
export interface CapSnapshot {
  readonly nextId: number;
  /** By ascending id, so that every parent stands before its children. */
  readonly capabilities: readonly SavedCapability[];
}

export interface SavedCapability {
  readonly id: number;
  readonly holder: number;
  readonly kind: CapKind;
  readonly object: string;
  readonly rights: number;
  readonly range: Range;
  readonly parent: number | null;
}

function saved({ id, holder, kind, object, rights, range, parent }: Node): SavedCapability {
  return { id, holder, kind, object, rights, range, parent: parent?.id ?? null };
}

export class CapSpace {
  readonly #limits: CapLimits;
  readonly #nodes = new Map<number, Node>();
  readonly #held = new Map<number, Set<Node>>();
  /** How many there are that were derived from those of a holder. */
  readonly #made = new Map<number, number>();
  #nextId = 1;
  #observer: CapObserver | null;

  constructor(limits: CapLimits, observer: CapObserver | null = null) {
    this.#limits = limits;
    this.#observer = observer;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** A root. For the control plane only: whoever may call this has every right. ARK_LIMIT, ARK_BAD_ARGUMENT. */
  mint(holder: number, kind: CapKind, object: string, rights: number, range: Range): Capability {
    checkRange(kind, range);
    if ((rights & ~allRights(kind)) !== 0 || rights === 0) {
      throw new ArrakisError(
        'ARK_BAD_ARGUMENT',
        `a capability of kind ${kind} with rights ${rights}`,
        {
          hint: 'give at least one right of its kind, and none of others',
        },
      );
    }
    return this.#add({ holder, kind, object, rights, range, parent: null });
  }

  /**
   * A child of `cap` with some of its rights and part of its range; for another holder that is a grant, and takes the
   * right 'grant'. ARK_NOT_PERMITTED when something would grow or `cap` is being revoked, ARK_LIMIT.
   */
  derive(cap: Capability, holder: number, rights: number, range: Range): Capability {
    const parent = this.#known(cap);
    checkRange(parent.kind, range);
    if (holder !== parent.holder && (parent.rights & GRANT) === 0) {
      throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${cap.id} may not be handed on`, {
        hint: 'its holder needs the right "grant"; ask whoever gave it',
      });
    }
    const more = rights & ~parent.rights;
    if (more !== 0) {
      const names = rightNames(parent.kind, more).join(', ') || `bits ${more}`;
      throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${cap.id} does not have ${names}`, {
        hint: `it has ${rightNames(parent.kind, parent.rights).join(', ')}`,
      });
    }
    if (rights === 0) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', 'a capability without any right', {
        hint: `choose from ${rightNames(parent.kind, parent.rights).join(', ')}`,
      });
    }
    if (!rangeCovers(parent.kind, parent.range, range)) {
      const text = `${formatRange(range)} is more than capability ${cap.id} covers`;
      throw new ArrakisError('ARK_NOT_PERMITTED', text, {
        hint: `it covers ${formatRange(parent.range)}`,
      });
    }
    const { kind, object } = parent;
    return this.#add({ holder, kind, object, rights, range, parent });
  }

  /**
   * A capability for a new object that exists by the authority of `parent`, such as a VNIC by that of its device. It
   * goes with `parent`. For the control plane only. ARK_NOT_PERMITTED while `parent` is being revoked, ARK_LIMIT.
   */
  attach(parent: Capability, holder: number, kind: CapKind, object: string): Capability {
    const node = this.#known(parent);
    return this.#add({ holder, kind, object, rights: allRights(kind), range: null, parent: node });
  }

  /** Another one of the same rights for the same holder, under the same parent; a root's copy is its child. */
  copy(cap: Capability): Capability {
    const node = this.#known(cap);
    this.#refuseRevoked(node);
    const { holder, kind, object, rights, range } = node;
    return this.#add({ holder, kind, object, rights, range, parent: node.parent ?? node });
  }

  /** Take `cap` and everything derived from it away. What went, leaves first; nothing when it had gone already. */
  remove(cap: Capability): readonly Capability[] {
    const node = this.#nodes.get(cap.id);
    if (node === undefined) return [];
    return this.#drop(postOrder(node));
  }

  /** Take everything away that was derived from `cap`, which stays. What went, leaves first. */
  revoke(cap: Capability): readonly Capability[] {
    const node = this.#nodes.get(cap.id);
    return node === undefined ? [] : this.#drop(postOrder(node).slice(0, -1));
  }

  /** Everything derived from `cap`, leaves first. */
  descendants(cap: Capability): readonly Capability[] {
    const node = this.#nodes.get(cap.id);
    return node === undefined ? [] : postOrder(node).slice(0, -1);
  }

  /** Take everything away that `holder` has, with everything derived from it: the holder has ended. */
  removeHolder(holder: number): readonly Capability[] {
    // A parent is older than its children, so what an earlier one takes along is not walked again.
    const removed = new Set<Node>();
    for (const node of this.#held.get(holder) ?? []) {
      if (removed.has(node)) continue;
      for (const each of postOrder(node)) removed.add(each);
    }
    return this.#drop([...removed]);
  }

  /** What `holder` has, by ascending id. */
  of(holder: number): Capability[] {
    return [...(this.#held.get(holder) ?? [])];
  }

  /** What was derived from the capabilities of `holder`, for itself or for others. */
  *madeOf(holder: number): Generator<Capability> {
    for (const node of this.#held.get(holder) ?? []) yield* node.children;
  }

  /** Every capability, by ascending id. */
  all(): IterableIterator<Capability> {
    return this.#nodes.values();
  }

  has(cap: Capability): boolean {
    return this.#nodes.get(cap.id) === cap;
  }

  /** Capability `id` of anybody, or undefined. For the control plane only. */
  get(id: number): Capability | undefined {
    return this.#nodes.get(id);
  }

  /** Capability `id` of `holder`; ARK_NOT_FOUND alike for ids of others, stale ones and those that never were. */
  find(holder: number, id: number): Capability {
    const node = this.#nodes.get(id);
    if (node === undefined || node.holder !== holder) throw absent(id);
    return node;
  }

  /**
   * `callback` runs once when `cap` goes, after the forest has changed: something exists by its authority. It must not
   * throw. The function that is returned takes it back.
   */
  onRemove(cap: Capability, callback: () => void): () => void {
    const node = this.#known(cap);
    // Its own function each time: the same callback may be given twice.
    const entry = () => callback();
    node.callbacks.add(entry);
    return () => {
      node.callbacks.delete(entry);
    };
  }

  /** A revocation of `cap` begins: until `thaw` nothing new is made from it or from what was derived from it. */
  freeze(cap: Capability): void {
    this.#known(cap).revocations++;
  }

  /** The revocation is over. Without effect when the capability has gone. */
  thaw(cap: Capability): void {
    const node = this.#nodes.get(cap.id);
    if (node === undefined) return;
    assert(node.revocations > 0, 'thaw follows freeze');
    node.revocations--;
  }

  snapshot(): CapSnapshot {
    return { nextId: this.#nextId, capabilities: [...this.#nodes.values()].map(saved) };
  }

  /** The space of a snapshot, without its callbacks. ARK_BAD_ARGUMENT when it is none. */
  static restore(
    snapshot: CapSnapshot,
    limits: CapLimits,
    observer: CapObserver | null = null,
  ): CapSpace {
    const space = new CapSpace(limits);
    for (const { id, parent: parentId, ...rest } of snapshot.capabilities) {
      const parent = parentId === null ? null : space.#nodes.get(parentId);
      if (parent === undefined || !(id >= space.#nextId) || !(id < snapshot.nextId)) {
        throw new ArrakisError(
          'ARK_BAD_ARGUMENT',
          `capability ${id} of the snapshot is out of order`,
          {
            hint: 'the snapshot is damaged; start without it',
          },
        );
      }
      checkRange(rest.kind, rest.range);
      space.#nextId = id;
      space.#add({ ...rest, parent });
    }
    space.#nextId = snapshot.nextId;
    // Who gave the snapshot knows it.
    space.#observer = observer;
    return space;
  }

  #known(cap: Capability): Node {
    const node = this.#nodes.get(cap.id);
    if (node === undefined || node !== cap) throw absent(cap.id);
    return node;
  }

  #refuseRevoked(node: Node): void {
    for (let at: Node | null = node; at !== null; at = at.parent) {
      if (at.revocations === 0) continue;
      throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${at.id} is being revoked`, {
        hint: 'nothing new can be made from it; delete it, or wait until it is gone',
      });
    }
  }

  #add(made: NewNode): Node {
    const { holder, parent } = made;
    const { madeMax, depthMax } = this.#limits;
    if (parent !== null) {
      this.#refuseRevoked(parent);
      if (parent.depth >= depthMax) {
        throw new ArrakisError('ARK_LIMIT', `capabilities are derived at most ${depthMax} deep`, {
          hint: 'derive from one that is nearer to its root',
        });
      }
      const count = this.#made.get(parent.holder) ?? 0;
      if (parent.holder !== 0 && count >= madeMax) {
        throw new ArrakisError(
          'ARK_LIMIT',
          `domain ${parent.holder} has made ${madeMax} capabilities`,
          {
            hint: 'delete some that are not needed any more',
          },
        );
      }
      this.#made.set(parent.holder, count + 1);
    }
    const node = new Node(this.#nextId++, made);
    this.#nodes.set(node.id, node);
    const held = this.#held.get(holder) ?? new Set();
    held.add(node);
    this.#held.set(holder, held);
    parent?.children.add(node);
    this.#observer?.added(saved(node));
    return node;
  }

  /** `nodes` come leaves first, each with everything below it. */
  #drop(nodes: readonly Node[]): readonly Capability[] {
    for (const node of nodes) {
      this.#nodes.delete(node.id);
      this.#observer?.removed(node.id);
      node.parent?.children.delete(node);
      const held = this.#held.get(node.holder)!;
      held.delete(node);
      if (held.size === 0) this.#held.delete(node.holder);
      if (node.parent === null) continue;
      const maker = node.parent.holder;
      const left = this.#made.get(maker)! - 1;
      if (left === 0) this.#made.delete(maker);
      else this.#made.set(maker, left);
    }
    for (const node of nodes) {
      const callbacks = [...node.callbacks];
      node.callbacks.clear();
      for (const callback of callbacks) callback();
    }
    return nodes;
  }
}

const absent = (id: number): ArrakisError =>
  new ArrakisError('ARK_NOT_FOUND', `there is no capability ${id} here`, {
    hint: '`arrakis cap ls` lists them; a revoked one is gone for good',
  });

/** `top` and all below it, every one after its children. Without recursion: the depth is bounded, the stack need not be. */
function postOrder(top: Node): Node[] {
  const order: Node[] = [];
  const waiting = [top];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    order.push(node);
    for (const child of node.children) waiting.push(child);
  }
  return order.reverse();
}
