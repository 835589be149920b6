/** From the text of a policy file to a policy, or to everything that is wrong with it. */
import path from 'node:path';
import type { z } from 'zod';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import { parsePath } from '../names/path.ts';
import { nameSchema } from '../vnic-spec.ts';
import { checkRules } from './check.ts';
import type { PolicyEnvironment } from './environment.ts';
import { Policy, type Rule, type RuleSubject } from './policy.ts';
import { inOrder, isError, type Problem, problemAt } from './problem.ts';
import { type PolicyInput, policySchema, type RuleInput } from './schema.ts';
import { type Path, type Places, readSource } from './source.ts';

export interface Parsed {
  /** Null when there are errors. */
  readonly policy: Policy | null;
  /** Errors and warnings in the order of the file, at most so many as LIMITS says. */
  readonly problems: readonly Problem[];
}

const SECTIONS = { users: 'user', groups: 'group', programs: 'program' } as const;
type Section = keyof typeof SECTIONS;

/** Throws nothing. `environment` is the machine that the policy is for. */
export function parsePolicy(text: string, environment: PolicyEnvironment): Parsed {
  const { tree, places, problems: found } = readSource(text);
  if (tree === null) return { policy: null, problems: limited(found) };
  const problems = [...found];
  const checked = policySchema.safeParse(tree);
  if (!checked.success) {
    // Where something is wrong already, the schema only sees the consequence.
    const known = new Set(found.map(({ line, column }) => `${line}:${column}`));
    const issues = checked.error.issues.flatMap((issue) => fromIssue(issue, places));
    problems.push(...issues.filter(({ line, column }) => !known.has(`${line}:${column}`)));
  }
  // What can be said of names is said beside what the schema says; ranges and the like only when all can be read.
  const reader = new RuleReader(places, environment, problems);
  const rules = reader.read(checked.success ? checked.data : null, tree);
  if (checked.success) problems.push(...checkRules(rules, environment));
  const policy = problems.some(isError) ? null : new Policy(rules);
  return { policy, problems: limited(problems) };
}

function limited(problems: readonly Problem[]): Problem[] {
  const all = inOrder(problems);
  const most = LIMITS.policyProblemsMax;
  if (all.length <= most) return all;
  const rest = problemAt(all[most]!, `${all.length - most} more from here on`, 'mend those first');
  return [...all.slice(0, most), rest];
}

/** One issue of the schema; each unknown key is a problem of its own. */
function fromIssue(issue: z.core.$ZodIssue, places: Places): Problem[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) =>
      problemAt(places.key([...issue.path, key]), `"${key}" is not known here`, issue.message),
    );
  }
  const hint = issue.code === 'custom' ? (issue.params?.hint as string | undefined) : undefined;
  return [
    problemAt(places.value(issue.path), issue.message, hint ?? 'docs/policy.md has examples'),
  ];
}

class RuleReader {
  readonly #places: Places;
  readonly #environment: PolicyEnvironment;
  readonly #problems: Problem[];
  readonly #seen = new Map<string, RuleSubject & { line: number }>();

  constructor(places: Places, environment: PolicyEnvironment, problems: Problem[]) {
    this.#places = places;
    this.#environment = environment;
    this.#problems = problems;
  }

  /** The rules of `input`; without one, only the subjects of `tree` are looked at. */
  read(input: PolicyInput | null, tree: unknown): Rule[] {
    const rules: Rule[] = [];
    for (const section of Object.keys(SECTIONS) as Section[]) {
      const names = (tree as Record<string, unknown>)[section];
      if (typeof names !== 'object' || names === null || Array.isArray(names)) continue;
      // Objects have keys that look like numbers first; the file's order is what people know.
      const places = Object.keys(names).map((name) => ({
        name,
        ...this.#places.key([section, name]),
      }));
      for (const { name } of inOrder(places)) {
        const at = [section, name];
        const subject = this.#subject(section, name, at);
        const rule = input?.[section][name];
        if (rule !== undefined && subject !== null) rules.push(this.#rule(subject, rule, at));
      }
    }
    return rules;
  }

  #report(at: Path, message: string, hint: string): null {
    this.#problems.push(problemAt(this.#places.key(at), message, hint));
    return null;
  }

  #subject(section: Section, name: string, at: Path): RuleSubject | null {
    const kind = SECTIONS[section];
    const subject = kind === 'program' ? this.#program(name, at) : this.#identity(kind, name, at);
    if (subject === null) return null;
    const key = `${kind}:${'id' in subject ? subject.id : subject.path}`;
    const before = this.#seen.get(key);
    const { line } = this.#places.key(at);
    this.#seen.set(key, { ...subject, line });
    if (before === undefined) return subject;
    const text = `${kind} "${name}" is "${before.name}" of line ${before.line}`;
    return this.#report(at, text, 'join the two');
  }

  #identity(kind: 'user' | 'group', name: string, at: Path): RuleSubject | null {
    const { users } = this.#environment;
    const id = kind === 'user' ? users.uid(name) : users.gid(name);
    if (id !== null) return { kind, name, id };
    const [file, what] = kind === 'user' ? ['passwd', 'uid'] : ['group', 'gid'];
    const hint = `/etc/${file} has none; write the ${what} when it is known elsewhere`;
    return this.#report(at, `there is no ${kind} "${name}"`, hint);
  }

  #program(name: string, at: Path): RuleSubject | null {
    const isPlain = path.isAbsolute(name) && path.normalize(name) === name && !name.endsWith('/');
    if (isPlain) return { kind: 'program', name, path: name };
    const hint = 'an absolute path without . and .., as /proc/PID/exe shows it';
    return this.#report(at, `"${name}" is no path of a program`, hint);
  }

  #rule(subject: RuleSubject, input: RuleInput, at: Path): Rule {
    for (const pool of Object.keys(input.pools)) {
      if (nameSchema.safeParse(pool).success) continue;
      this.#report([...at, 'pools', pool], `"${pool}" is no name of a pool`, 'such as nvme0');
    }
    for (const directory of Object.keys(input.names)) {
      try {
        parsePath(directory);
      } catch (error) {
        if (!(error instanceof ArrakisError)) throw error;
        this.#report([...at, 'names', directory], error.message, error.hint ?? '');
      }
    }
    return {
      subject,
      at: this.#places.key(at),
      vnics: input.vnics ?? null,
      devices: input.devices.map((device, i) => ({
        ...device,
        at: this.#places.value([...at, 'devices', i]),
      })),
      addresses: input.addresses.map((entry, i) => ({
        ...entry,
        at: this.#places.value([...at, 'addresses', i]),
      })),
      rate: input.rate ?? null,
      cores: [...new Set(input.cores)].sort((a, b) => a - b),
      pools: Object.entries(input.pools).map(([name, bytes]) => ({ name, bytes })),
      names: Object.entries(input.names).map(([name, access]) => ({ path: name, access })),
      grant: input.grant,
    };
  }
}
