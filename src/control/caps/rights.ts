/** What a capability may be for, and the rights that it may carry. Rights are bits of one number; `grant` is in every kind. */
import { ArrakisError } from '../../base/errors.ts';

/** May be handed to other domains. */
export const GRANT = 1;

/** Rights of each kind. The object of a capability is named by text: `soft0`, `vnic:12`, `region:7`. */
export const RIGHTS = {
  /** A network device: open VNICs on it; `direct` ones too, which nothing checks when they send. */
  device: { grant: GRANT, open: 2, direct: 4 },
  /** IPv4 addresses and ports on a device (`*`: on any) that a VNIC may have. */
  addresses: { grant: GRANT, use: 2 },
  rate: { grant: GRANT, use: 2 },
  cores: { grant: GRANT, use: 2 },
  /** Bytes of storage. */
  pool: { grant: GRANT, allocate: 2 },
  vnic: { grant: GRANT, open: 2, filter: 4, rate: 8, capture: 16, close: 32 },
  region: { grant: GRANT, read: 2, write: 4 },
  endpoint: { grant: GRANT, connect: 2, listen: 4 },
  directory: { grant: GRANT, list: 2, lookup: 4, bind: 8, remove: 16, watch: 32 },
} as const satisfies Record<string, Record<string, number>>;

export type CapKind = keyof typeof RIGHTS;

export const CAP_KINDS = Object.keys(RIGHTS) as [CapKind, ...CapKind[]];

/** Every right of `kind`. */
export const allRights = (kind: CapKind): number =>
  Object.values<number>(RIGHTS[kind]).reduce((all, right) => all | right, 0);

/** Names of the rights in `rights`, in the order of the table. */
export const rightNames = (kind: CapKind, rights: number): string[] =>
  Object.entries<number>(RIGHTS[kind])
    .filter(([, right]) => (rights & right) !== 0)
    .map(([name]) => name);

/** The rights of these names as bits. ARK_BAD_ARGUMENT for a name that `kind` does not have. */
export function rightsOf(kind: CapKind, names: readonly string[]): number {
  const known: Record<string, number> = RIGHTS[kind];
  let rights = 0;
  for (const name of names) {
    if (!Object.hasOwn(known, name)) {
      throw new ArrakisError(
        'ARK_BAD_ARGUMENT',
        `a capability of kind ${kind} has no right "${name}"`,
        {
          hint: `its rights are ${Object.keys(known).join(', ')}`,
        },
      );
    }
    rights |= known[name]!;
  }
  return rights;
}
