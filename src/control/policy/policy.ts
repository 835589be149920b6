/**
 * A policy: what users, groups and programs are given before they ask for anything. By default that is nothing.
 *
 * - Rules add up: a domain gets what its user's rule, each of its groups' and its program's give, and no more.
 * - Here subjects are numbers and paths, so that names that change later change nothing.
 * - Root and the daemon's own user have everything without a rule.
 */
import type { InitialCapability, Subject } from '../caps/initial.ts';
import type { AddressRange, RateRange } from '../caps/range.ts';
import { GRANT, RIGHTS } from '../caps/rights.ts';
import type { Position } from './problem.ts';
import type { Access } from './schema.ts';

/** What the rules look at. */
export type PolicyPeer = Omit<Subject, 'pid'>;

export type RuleSubject =
  | { readonly kind: 'user' | 'group'; readonly name: string; readonly id: number }
  | { readonly kind: 'program'; readonly name: string; readonly path: string };

export interface DeviceEntry {
  readonly name: string;
  /** Also direct VNICs, which nothing checks when they send. */
  readonly direct: boolean;
  readonly at: Position;
}

export interface AddressEntry {
  /** `*`: on any. */
  readonly device: string;
  /** Nobody else in the policy may be given any of it. */
  readonly exclusive: boolean;
  readonly ranges: readonly AddressRange[];
  readonly at: Position;
}

export interface Rule {
  readonly subject: RuleSubject;
  readonly at: Position;
  /** How many VNICs its user may have at once; null: the rule does not say. */
  readonly vnics: number | null;
  readonly devices: readonly DeviceEntry[];
  readonly addresses: readonly AddressEntry[];
  readonly rate: RateRange | null;
  readonly cores: readonly number[];
  readonly pools: readonly { readonly name: string; readonly bytes: number }[];
  readonly names: readonly { readonly path: string; readonly access: Access }[];
  /** Everything that the rule gives may be handed on. */
  readonly grant: boolean;
}

/** Any object of the kind. */
export const ANY_OBJECT = '*';

const { list, lookup, watch, bind, remove } = RIGHTS.directory;
const DIRECTORY_RIGHTS: Record<Access, number> = {
  read: list | lookup | watch,
  write: list | lookup | watch | bind | remove,
};

export class Policy {
  readonly rules: readonly Rule[];

  constructor(rules: readonly Rule[]) {
    this.rules = rules;
  }

  /** What a domain of `peer` has from the start. The same never twice. */
  policyFor(peer: PolicyPeer): InitialCapability[] {
    const given = new Map<string, InitialCapability>();
    for (const rule of this.#matching(peer)) {
      for (const capability of capabilitiesOf(rule)) given.set(keyOf(capability), capability);
    }
    return [...given.values()];
  }

  /** How many VNICs the user of `peer` may have at once: the sum of what rules say; null when none says anything. */
  vnicsFor(peer: PolicyPeer): number | null {
    const counts = this.#matching(peer).flatMap(({ vnics }) => (vnics === null ? [] : [vnics]));
    return counts.length === 0 ? null : counts.reduce((sum, count) => sum + count);
  }

  #matching(peer: PolicyPeer): Rule[] {
    return this.rules.filter(({ subject }) => {
      if (subject.kind === 'program') return subject.path === peer.exe;
      if (subject.kind === 'user') return subject.id === peer.uid;
      return subject.id === peer.gid || peer.groups.includes(subject.id);
    });
  }
}

/** The policy of who has none. */
export const NO_POLICY = new Policy([]);

/** Two capabilities with the same key give the same. */
export const keyOf = ({ kind, object, rights, range }: InitialCapability): string =>
  JSON.stringify([kind, object, rights, range]);

function capabilitiesOf(rule: Rule): InitialCapability[] {
  const grant = rule.grant ? GRANT : 0;
  const give = (
    kind: InitialCapability['kind'],
    object: string,
    rights: number,
    range: InitialCapability['range'] = null,
  ): InitialCapability => ({ kind, object, rights: rights | grant, range });
  const { open, direct } = RIGHTS.device;
  return [
    ...rule.devices.map(({ name, direct: isDirect }) =>
      give('device', name, isDirect ? open | direct : open),
    ),
    ...rule.addresses.flatMap(({ device, ranges }) =>
      ranges.map((range) => give('addresses', device, RIGHTS.addresses.use, range)),
    ),
    ...(rule.rate === null ? [] : [give('rate', ANY_OBJECT, RIGHTS.rate.use, rule.rate)]),
    ...(rule.cores.length === 0
      ? []
      : [give('cores', ANY_OBJECT, RIGHTS.cores.use, { cpus: rule.cores })]),
    ...rule.pools.map(({ name, bytes }) => give('pool', name, RIGHTS.pool.allocate, { bytes })),
    ...rule.names.map(({ path, access }) => give('directory', path, DIRECTORY_RIGHTS[access])),
  ];
}
