/** What stands in the name tree, and who may do what with it. */
import { RIGHTS } from '../caps/rights.ts';

/** Who asks. */
export interface Who {
  /** Id of the domain; 0 is the daemon. */
  readonly domain: number;
  readonly uid: number;
  readonly gid: number | null;
  /** Permissions do not bind it. */
  readonly privileged: boolean;
}

interface Common {
  /** Never used again. */
  readonly id: number;
  readonly name: string;
  readonly parent: Directory | null;
  /** Domain with which it ends; 0: it stays. */
  readonly owner: number;
  readonly uid: number;
}

/** A name for something; `value` is its user's. */
export interface Binding<V> extends Common {
  readonly kind: 'binding';
  readonly value: V;
}

export interface Watch {
  readonly id: number;
  readonly domain: number;
  readonly directory: Directory;
}

export interface Directory extends Common {
  readonly kind: 'directory';
  readonly gid: number | null;
  /** As of a file: rwx for owner, group and others. r: list and watch; w: bind and remove; x: look up. */
  readonly mode: number;
  /** Nobody may remove it. */
  readonly fixed: boolean;
  /** Domain that answers for everything below; null: what is below stands here. */
  server: number | null;
  readonly watches: Set<Watch>;
}

export type Need = Exclude<keyof typeof RIGHTS.directory, 'grant'>;

const MODE_BITS: Readonly<Record<Need, number>> = {
  list: 4,
  watch: 4,
  bind: 2,
  remove: 2,
  lookup: 1,
};

/**
 * Whether `who` may do `need` in `directory`. With a capability its `rights` count instead, here and in everything below
 * the directory that it is for.
 */
export function may(who: Who, directory: Directory, need: Need, rights: number | null): boolean {
  if (who.privileged) return true;
  if (rights !== null) return (rights & RIGHTS.directory[need]) !== 0;
  const { uid, gid, mode } = directory;
  const shift = who.uid === uid ? 6 : who.gid !== null && who.gid === gid ? 3 : 0;
  return ((mode >> shift) & MODE_BITS[need]) !== 0;
}

/** As in a directory with the sticky bit: who may bind there may still not remove what is another user's. */
export function mayRemove<V>(
  who: Who,
  node: Directory | Binding<V>,
  rights: number | null,
): boolean {
  const parent = node.parent!;
  if (!may(who, parent, 'remove', rights)) return false;
  return who.privileged || rights !== null || node.uid === who.uid || parent.uid === who.uid;
}

export function pathOf(node: { readonly name: string; readonly parent: Directory | null }): string {
  const parts: string[] = [];
  for (let at: typeof node | null = node; at !== null && at.parent !== null; at = at.parent) {
    parts.push(at.name);
  }
  return `/${parts.reverse().join('/')}`;
}
