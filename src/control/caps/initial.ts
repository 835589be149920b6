/** What a domain is given before it asks for anything: the policy's word. */
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { Capability, CapKind, Range } from './space.ts';

export interface InitialCapability {
  readonly kind: CapKind;
  /** Name of a device; `*` is any. */
  readonly object: string;
  readonly rights: number;
  readonly range: Range;
}

/** Who a domain is, as far as the kernel or a privileged caller said. */
export interface Subject {
  readonly uid: number;
  readonly gid: number | null;
  /** Supplementary ones. */
  readonly groups: readonly number[];
  /** Absolute path of its executable; null: not known. */
  readonly exe: string | null;
  /** 0 for a domain that was prepared and whose process is not there yet. */
  readonly pid: number;
}

export type InitialCapabilities = (subject: Subject) => readonly InitialCapability[];

/** Mint what `domain` has from the start. A privileged one has everything and needs none. */
export function giveInitial(plane: ControlPlane, domain: Domain): void {
  if (domain.privileged) return;
  const initial = plane.initialCapabilities(domain);
  for (const capability of initial) giveCapability(plane, domain, capability);
  if (initial.length > 0) plane.keeping.put('domain', domain.id, domain.save());
}

/** Mint one capability for `domain`, and remember that it is the policy's to take back. */
export function giveCapability(
  plane: ControlPlane,
  domain: Domain,
  { kind, object, rights, range }: InitialCapability,
): Capability {
  const cap = plane.caps.mint(domain.id, kind, object, rights, range);
  domain.given.add(cap.id);
  return cap;
}
