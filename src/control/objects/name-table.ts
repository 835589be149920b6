/**
 * Names in the control plane: the tree (names/), what its names stand for, who is told of changes, and questions to
 * domains that serve a directory.
 *
 * - A name for a capability stands for one of its binder's. A lookup derives from that one, so removing the name takes
 *   nothing from those who looked it up, and the end of the binder takes everything.
 * - A domain that is given the same again gets the same capability, while it has it: neither lookups nor questions can use
 *   up what the binder or the server may make.
 * - A serving domain has bounded time for an answer, and is not asked while it does not read.
 */
import { ArrakisError } from '../../base/errors.ts';
import { GRANT, RIGHTS } from '../caps/rights.ts';
import { requireLookupShare } from '../caps/shares.ts';
import type { Capability } from '../caps/space.ts';
import { dropCapability } from '../caps/withdraw.ts';
import { LIMITS } from '../limits.ts';
import { Mailbox } from '../mailbox.ts';
import { type Binding, type Directory, pathOf, type Watch, type Who } from '../names/node.ts';
import { type Change, NameTree, type Node, type SavedName, type Start } from '../names/tree.ts';
import type { ControlPlane } from '../plane.ts';
import { findCapability } from './capability.ts';
import type { Domain } from './domain.ts';
import type { Endpoint } from './endpoint.ts';

const PREFIX = 'directory:';
/** A user that owns nothing: a prepared domain has what it was given, also when its holder runs as root. */
const NOBODY = -1;

const FIXED = [
  { path: '/app', mode: 0o777 },
  { path: '/net', mode: 0o755 },
  { path: '/vsa', mode: 0o755 },
];

export interface NamedCapability {
  readonly kind: 'capability';
  readonly cap: Capability;
  /** That a lookup gives. */
  readonly rights: number;
}

/** What a name stands for. */
export type NameValue =
  | NamedCapability
  | { readonly kind: 'endpoint'; readonly endpoint: Endpoint };

/** What a path leads to; `asked` asks the serving domain. */
export type FoundName =
  | { readonly node: Node<NameValue> }
  | { readonly asked: () => Promise<Capability> };

interface Question {
  readonly server: Domain;
  readonly asker: Domain;
  answer(cap: Capability): void;
  refuse(error: ArrakisError): void;
}

interface Pending {
  changes: { name: string; change: Change }[];
  more: boolean;
}

/** Who `domain` is to the tree. */
export function whoIs(plane: ControlPlane, domain: Domain): Who {
  const { id, uid, gid, privileged } = domain;
  if (!privileged && plane.isPrivileged(uid)) {
    return { domain: id, uid: NOBODY, gid: null, privileged };
  }
  return { domain: id, uid, gid, privileged };
}

/** Where a path of `domain` begins: at the root, or in the directory of its capability `at`. */
export function startAt(plane: ControlPlane, domain: Domain, at: number | undefined): Start {
  const { tree } = plane.names;
  if (at === undefined) return { directory: tree.root, rights: null };
  const cap = findCapability(plane, domain, at);
  if (cap.kind !== 'directory') {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `capability ${at} is for a ${cap.kind}`, {
      hint: 'paths begin at the root, or at a capability of kind directory',
    });
  }
  const directory = directoryOf(tree, cap);
  if (directory === undefined) {
    throw new ArrakisError('ARK_GONE', `there is no directory ${cap.object}`, {
      hint: 'it was removed, or nobody has made it yet',
    });
  }
  return { directory, rights: cap.rights };
}

/** One that was made is meant by its number; one of the policy, by its path: whatever directory is there now. */
const directoryOf = (tree: NameTree<NameValue>, { object }: Capability): Directory | undefined =>
  object.startsWith(PREFIX)
    ? tree.directory(Number(object.slice(PREFIX.length)))
    : tree.directoryAt(object);

export const directoryObject = (directory: Directory): string => `${PREFIX}${directory.id}`;

export class NameTable {
  readonly tree: NameTree<NameValue>;
  readonly #plane: ControlPlane;
  /** Of a directory or a bound capability: what ends with the name. */
  readonly #onDrop = new Map<Node<NameValue>, () => void>();
  /** Of each capability what was derived from it, by `DOMAIN RIGHTS`. */
  readonly #handedOut = new WeakMap<Capability, Map<string, Capability>>();
  readonly #mail = new WeakMap<Domain, Mailbox>();
  readonly #pending = new WeakMap<Watch, Pending>();
  readonly #questions = new Map<number, Question>();
  #nextQuestion = 1;
  /** Ids below are noted as used. */
  #reserved = 0;

  constructor(plane: ControlPlane) {
    this.#plane = plane;
    const owner = { uid: plane.uid, gid: plane.self.gid };
    this.tree = new NameTree<NameValue>(owner, FIXED, {
      changed: (watch, name, change) => this.#changed(watch, name, change),
      noted: (node) => this.#note(node),
      dropped: (node) => this.#dropped(node),
    });
  }

  /** What `path` of `domain` leads to. Changes nothing and asks nobody. */
  find(domain: Domain, path: string, start: Start): FoundName {
    const found = this.tree.lookup(whoIs(this.#plane, domain), path, start);
    if ('node' in found) return found;
    const { served, rest } = found;
    return { asked: () => this.#ask(domain, served, rest) };
  }

  /** The endpoint that was found, by its name or by a name for a capability to connect to it. */
  endpointIn(node: Node<NameValue>): Endpoint {
    if (node.kind === 'binding') {
      const { value } = node;
      return value.kind === 'endpoint'
        ? value.endpoint
        : this.#plane.endpoints.find(value.cap, value.rights);
    }
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${pathOf(node)} is a directory`, {
      hint: '`arrakis name ls` shows what is in it',
    });
  }

  /** The capability that looking `binding` up gives `domain`. ARK_NOT_PERMITTED while the bound one is being revoked. */
  deriveFor(domain: Domain, binding: Binding<NameValue>): Capability {
    const { value } = binding;
    return value.kind === 'endpoint'
      ? this.#handOut(value.endpoint.cap, domain, RIGHTS.endpoint.connect)
      : this.#handOut(value.cap, domain, value.rights);
  }

  #handOut(cap: Capability, to: Domain, rights: number): Capability {
    const { caps } = this.#plane;
    const known = this.#handedOut.get(cap) ?? new Map<string, Capability>();
    this.#handedOut.set(cap, known);
    const key = `${to.id} ${rights}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    requireLookupShare(this.#plane, cap, to);
    const derived = caps.derive(cap, to.id, rights, cap.range);
    known.set(key, derived);
    caps.onRemove(derived, () => known.delete(key));
    return derived;
  }

  /** Bind a capability: the name ends with it. */
  bindCapability(who: Who, path: string, value: NamedCapability, start: Start): void {
    this.#follow(this.tree.bind(who, path, value, start), value.cap);
  }

  /** A new directory with a capability for it. */
  make(
    domain: Domain,
    path: string,
    options: { mode: number; keep: boolean },
    start: Start,
  ): { directory: Directory; cap: Capability } {
    const { caps } = this.#plane;
    const all = Object.values(RIGHTS.directory).reduce((sum, right) => sum | right, 0);
    let cap!: Capability;
    // Its capability is noted first: what the next daemon finds without a directory goes.
    const directory = this.tree.make(whoIs(this.#plane, domain), path, options, start, (made) => {
      cap = caps.mint(domain.id, 'directory', directoryObject(made), all, null);
      this.#onDrop.set(made, () => dropCapability(this.#plane, cap, null));
    });
    return { directory, cap };
  }

  /** Take a name out whose object has ended. */
  drop(node: Node<NameValue>): void {
    this.tree.drop(node);
  }

  answer(
    server: Domain,
    id: number,
    cap: Capability | null,
    rights: number,
    refusal: string,
  ): void {
    const question = this.#questions.get(id);
    if (question === undefined || question.server !== server) {
      throw new ArrakisError('ARK_NOT_FOUND', `nobody waits for an answer to question ${id}`, {
        hint: `answers come within ${LIMITS.nameAnswerMsMax} ms`,
      });
    }
    if (cap === null) {
      question.refuse(new ArrakisError('ARK_NOT_FOUND', `its server says: ${refusal}`));
      return;
    }
    const { asker } = question;
    if (asker.closed) throw new ArrakisError('ARK_GONE', 'who asked has ended');
    // Who asked has its share already: that is its trouble, not the server's.
    if (!this.#mayHave(cap, asker, rights, question)) return;
    question.answer(this.#handOut(cap, asker, rights));
  }

  #mayHave(cap: Capability, asker: Domain, rights: number, question: Question): boolean {
    if (this.#handedOut.get(cap)?.has(`${asker.id} ${rights}`)) return true;
    try {
      requireLookupShare(this.#plane, cap, asker);
      return true;
    } catch (error) {
      question.refuse(error as ArrakisError);
      return false;
    }
  }

  /** The domain has ended. */
  endDomain(domain: Domain): void {
    this.tree.endDomain(domain.id);
    for (const question of [...this.#questions.values()]) {
      if (question.server === domain) {
        question.refuse(new ArrakisError('ARK_GONE', 'the domain that serves it has ended'));
      }
    }
  }

  /** Note it for the next daemon. */
  #note(node: Node<NameValue>): void {
    const { keeping } = this.#plane;
    if (this.tree.nextId > this.#reserved) {
      this.#reserved = this.tree.nextId + LIMITS.idsReserved;
      keeping.put('ids', 'names', { next: this.#reserved });
    }
    keeping.put('name', node.id, savedName(node));
  }

  /** Names of the daemon before come next: their ids are not given out again. */
  reserveIds(next: number): void {
    this.tree.reserveIds(next);
    this.#reserved = next;
  }

  /**
   * Put a name of the daemon before back, after domains, capabilities and endpoints, by ascending id. False, and it is not
   * there, when it names what is gone, or stands in a directory that is. Watches are not kept.
   */
  restore(id: number, saved: SavedName): boolean {
    const { caps, endpoints } = this.#plane;
    const node = this.tree.restore(id, saved, (text): NameValue | null => {
      const value = text as { endpoint?: number; cap?: number; rights?: number };
      if (value.endpoint !== undefined) {
        const endpoint = endpoints.get(value.endpoint);
        return endpoint === undefined ? null : { kind: 'endpoint', endpoint };
      }
      const cap = caps.get(value.cap!);
      return cap === undefined ? null : { kind: 'capability', cap, rights: value.rights! };
    });
    return node !== null;
  }

  /** All are back: tie them to what they end with, and end what was of domains that are gone. */
  adopt(): void {
    const { caps, domains } = this.#plane;
    const roots = new Map<string, Capability[]>();
    for (const cap of caps.all()) {
      if (cap.kind !== 'directory' || cap.parent !== null) continue;
      roots.set(cap.object, [...(roots.get(cap.object) ?? []), cap]);
    }
    const owners = new Set<number>();
    for (const node of this.tree.all()) {
      this.#adopt(node, roots);
      owners.add(node.owner);
      if (node.kind === 'directory' && node.server !== null) owners.add(node.server);
    }
    for (const id of owners) if (id !== 0 && !domains.has(id)) this.tree.endDomain(id);
  }

  #adopt(node: Node<NameValue>, roots: ReadonlyMap<string, readonly Capability[]>): void {
    if (node.kind === 'binding') {
      if (node.value.kind === 'endpoint') node.value.endpoint.binding = node;
      else this.#follow(node, node.value.cap);
      return;
    }
    const own = roots.get(directoryObject(node)) ?? [];
    this.#onDrop.set(node, () => {
      for (const cap of own) dropCapability(this.#plane, cap, null);
    });
  }

  #follow(binding: Binding<NameValue>, cap: Capability): void {
    this.#onDrop.set(
      binding,
      this.#plane.caps.onRemove(cap, () => this.tree.drop(binding)),
    );
  }

  #dropped(node: Node<NameValue>): void {
    this.#plane.keeping.delete('name', node.id);
    this.#onDrop.get(node)?.();
    this.#onDrop.delete(node);
    if (node.kind !== 'binding' || node.value.kind !== 'endpoint') return;
    const { endpoint } = node.value;
    this.#plane.endpoints.end(endpoint, 'its name was removed', endpoint.domain.closed);
  }

  #changed(watch: Watch, name: string, change: Change): void {
    const domain = this.#plane.domains.get(watch.domain);
    if (domain === undefined) return;
    const pending = this.#pending.get(watch) ?? { changes: [], more: false };
    this.#pending.set(watch, pending);
    if (pending.changes.length < LIMITS.changesPerEventMax || name === '') {
      pending.changes.push({ name, change });
    } else pending.more = true;
    const mail = this.#mail.get(domain) ?? new Mailbox(domain);
    this.#mail.set(domain, mail);
    mail.post(`watch ${watch.id}`, () => {
      this.#pending.delete(watch);
      domain.event('name.changed', { watch: watch.id, ...pending });
    });
  }

  #ask(asker: Domain, directory: Directory, rest: string): Promise<Capability> {
    const server = this.#plane.domains.get(directory.server ?? -1);
    if (server === undefined || server.closed) {
      throw new ArrakisError('ARK_GONE', `${pathOf(directory)}: its server has ended`);
    }
    if (server === asker) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${pathOf(directory)} is served by this domain`, {
        hint: 'it cannot ask itself',
      });
    }
    let owed = 0;
    for (const question of this.#questions.values()) if (question.server === server) owed++;
    if (server.busy || owed >= LIMITS.nameQuestionsMax) {
      throw new ArrakisError('ARK_LIMIT', `${pathOf(directory)}: its server does not keep up`, {
        hint: 'try again in a moment',
      });
    }
    const id = this.#nextQuestion++;
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#questions.delete(id);
      };
      const refuse = (error: ArrakisError): void => {
        done();
        reject(error);
      };
      const timer = setTimeout(() => {
        const text = `${pathOf(directory)}: no answer in ${LIMITS.nameAnswerMsMax} ms`;
        refuse(new ArrakisError('ARK_TIMEOUT', text, { hint: 'its server may hang' }));
      }, LIMITS.nameAnswerMsMax);
      const answer = (cap: Capability): void => {
        done();
        resolve(cap);
      };
      this.#questions.set(id, { server, asker, answer, refuse });
      const { id: domain, name, uid, pid } = asker;
      const peer = { domain, name, uid, pid };
      server.event('name.asked', { question: id, directory: directory.id, path: rest, peer });
    });
  }
}

/** As its record has it. */
function savedName(node: Node<NameValue>): SavedName {
  const { owner, uid } = node;
  const path = pathOf(node);
  if (node.kind === 'directory') {
    const { gid, mode, server } = node;
    return { path, owner, uid, gid, mode, server };
  }
  const { value } = node;
  const saved =
    value.kind === 'endpoint'
      ? { endpoint: value.endpoint.id }
      : { cap: value.cap.id, rights: value.rights };
  return { path, owner, uid, value: saved };
}

/** All that `cap` may be looked up with: grant is not handed on unless it is asked for. */
export const lookupRights = (cap: Capability): number => cap.rights & ~GRANT;
