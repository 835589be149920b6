/**
 * The policy in force: loaded at the start, loaded again on demand. A file that cannot be used changes nothing.
 *
 * After a load every domain is brought to what the new policy gives. What it had from the old one and the new one does
 * not cover is revoked, with the usual warning to its holder; what is new is minted. What others granted to it, or what a
 * privileged caller minted, is not the policy's.
 */
import { ArrakisError } from '../../base/errors.ts';
import { giveCapability, type InitialCapability, type Subject } from '../caps/initial.ts';
import { rangeCovers } from '../caps/range.ts';
import type { Capability } from '../caps/space.ts';
import { withdraw } from '../caps/withdraw.ts';
import type { Log } from '../log.ts';
import { describeCapability } from '../objects/capability.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { PolicyEnvironment } from './environment.ts';
import { loadPolicy } from './file.ts';
import { ANY_OBJECT, keyOf, NO_POLICY, type Policy } from './policy.ts';
import type { Problem } from './problem.ts';

export interface PolicySource {
  readonly file: string;
  /** Whether a file that is not there is an error, or a policy that gives nothing. */
  readonly required: boolean;
  /** The machine as it is now. */
  readonly environment: () => PolicyEnvironment;
}

export interface Reloaded {
  readonly file: string;
  /** Capabilities that domains got, and lost with all that was derived from them. */
  readonly granted: number;
  readonly revoked: number;
  readonly warnings: readonly Problem[];
}

export class PolicyStore {
  readonly #source: PolicySource;
  readonly #log: Log;
  #policy: Policy;
  #busy: Promise<unknown> = Promise.resolve();

  private constructor(source: PolicySource, log: Log, policy: Policy) {
    this.#source = source;
    this.#log = log;
    this.#policy = policy;
  }

  /** Throws ARK_POLICY, or ARK_NOT_FOUND for a required file. */
  static open(source: PolicySource, log: Log): PolicyStore {
    const { policy, warnings } = load(source, log);
    const store = new PolicyStore(source, log, policy);
    store.#tell(warnings);
    return store;
  }

  get policy(): Policy {
    return this.#policy;
  }

  readonly initialCapabilities = (domain: Subject): InitialCapability[] =>
    this.#policy.policyFor(domain);

  /**
   * Load the file again and bring every domain to it. Resolves when what is revoked is gone, on the data plane too.
   * One at a time. Rejects with what `open` throws: the policy before then stays.
   */
  reload(plane: ControlPlane): Promise<Reloaded> {
    const done = this.#busy.then(() => this.#reload(plane));
    this.#busy = done.catch(() => {});
    return done;
  }

  async #reload(plane: ControlPlane): Promise<Reloaded> {
    const { file } = this.#source;
    let loaded: ReturnType<typeof load>;
    try {
      loaded = load(this.#source, this.#log);
    } catch (error) {
      if (error instanceof ArrakisError) {
        const { code, message, hint = '' } = error;
        this.#log('error', 'the policy before stays', { file, code, error: message, hint });
      }
      throw error;
    }
    this.#policy = loaded.policy;
    this.#tell(loaded.warnings);
    const counts = await this.apply(plane);
    this.#log('info', 'policy loaded', { file, rules: this.#policy.rules.length, ...counts });
    return { file, ...counts, warnings: loaded.warnings };
  }

  /** Bring every domain to the policy: after a load, and after a daemon has taken over the domains of another. */
  async apply(plane: ControlPlane): Promise<{ granted: number; revoked: number }> {
    let granted = 0;
    const lost: Capability[] = [];
    for (const domain of plane.domains.values()) {
      if (domain.privileged || domain.closed) continue;
      const change = this.#change(plane, domain);
      for (const capability of change.gained) {
        const cap = giveCapability(plane, domain, capability);
        domain.notices.granted(describeCapability(cap), 0);
        granted++;
      }
      lost.push(...change.lost);
      for (const cap of change.lost) domain.given.delete(cap.id);
      if (change.gained.length + change.lost.length > 0) {
        plane.keeping.put('domain', domain.id, domain.save());
      }
    }
    const gone = await Promise.all(lost.map((cap) => withdraw(plane, cap, { whole: true, by: 0 })));
    return { granted, revoked: gone.reduce((sum, count) => sum + count, 0) };
  }

  /** What `domain` is to get, and what it is to lose of that which it was given. */
  #change(
    plane: ControlPlane,
    domain: Domain,
  ): { gained: InitialCapability[]; lost: Capability[] } {
    const wanted = this.#policy.policyFor(domain);
    const has = [...domain.given].flatMap((id) => plane.caps.get(id) ?? []);
    const keys = new Set(has.map(keyOf));
    return {
      gained: wanted.filter((capability) => !keys.has(keyOf(capability))),
      lost: has.filter((cap) => !wanted.some((capability) => covers(capability, cap))),
    };
  }

  #tell(warnings: readonly Problem[]): void {
    const { file } = this.#source;
    for (const { line, column, message, hint = '' } of warnings) {
      this.#log('warn', 'policy', { at: `${file}:${line}:${column}`, warning: message, hint });
    }
  }
}

/**
 * Where the file need not be, one that we cannot reach is none: a daemon may have the HOME of another user. It then gives
 * nothing, and the log says so.
 */
function load(source: PolicySource, log: Log): { policy: Policy; warnings: readonly Problem[] } {
  try {
    return loadPolicy(source.file, source.environment());
  } catch (error) {
    if (!(error instanceof ArrakisError) || source.required) throw error;
    const { code, message, hint = '' } = error;
    if (code !== 'ARK_NOT_FOUND' && code !== 'ARK_NOT_PERMITTED') throw error;
    if (code === 'ARK_NOT_PERMITTED') log('warn', 'no policy', { error: message, hint });
    return { policy: NO_POLICY, warnings: [] };
  }
}

/** Whether `wide` gives everything that `narrow` does. */
const covers = (wide: InitialCapability, narrow: InitialCapability): boolean =>
  wide.kind === narrow.kind &&
  (wide.object === narrow.object || wide.object === ANY_OBJECT) &&
  (narrow.rights & ~wide.rights) === 0 &&
  rangeCovers(wide.kind, wide.range, narrow.range);
