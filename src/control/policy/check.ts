/** What is wrong with rules that can be read: they contradict each other, or the machine. */
import { formatIpv4 } from '../../base/address.ts';
import type { AddressRange } from '../caps/range.ts';
import { LIMITS } from '../limits.ts';
import type { PolicyEnvironment } from './environment.ts';
import { type AddressEntry, ANY_OBJECT, type Rule } from './policy.ts';
import { type Problem, problemAt } from './problem.ts';
import { formatAddresses, type Interval } from './values.ts';

export function checkRules(rules: readonly Rule[], environment: PolicyEnvironment): Problem[] {
  const tooMany = checkSize(rules);
  if (tooMany.length > 0) return tooMany;
  const problems = checkExclusive(rules);
  for (const rule of rules) {
    problems.push(
      ...checkSubject(rule, environment),
      ...checkDevices(rule, environment),
      ...checkCores(rule, environment),
      ...checkComplete(rule),
    );
  }
  return problems;
}

/** What each domain of a subject would be given, and what the comparison of every range with every other costs. */
function checkSize(rules: readonly Rule[]): Problem[] {
  let entries = 0;
  for (const rule of rules) {
    entries += rule.devices.length + rule.pools.length + rule.names.length;
    for (const { ranges } of rule.addresses) entries += ranges.length;
    if (entries <= LIMITS.policyEntriesMax) continue;
    const text = `a policy gives at most ${LIMITS.policyEntriesMax} things`;
    return [problemAt(rule.at, text, 'give them to groups, or join ranges')];
  }
  return [];
}

interface Claim {
  readonly entry: AddressEntry;
  readonly range: AddressRange;
  readonly rule: Rule;
}

const meet = (a: Interval, b: Interval): boolean => a.first <= b.last && b.first <= a.last;

/** Whether a packet could match both. Only udp and tcp have ports; elsewhere a range has all of them. */
function overlap(a: Claim, b: Claim): boolean {
  const devices = [a.entry.device, b.entry.device];
  const protocols = [a.range.protocol, b.range.protocol];
  return (
    meet(a.range, b.range) &&
    (devices[0] === devices[1] || devices.includes(ANY_OBJECT)) &&
    (protocols[0] === protocols[1] || protocols.includes('any')) &&
    a.range.portFirst <= b.range.portLast &&
    b.range.portFirst <= a.range.portLast
  );
}

/** An exclusive range that somebody else is given a part of; each pair of entries once, at the later one. */
function checkExclusive(rules: readonly Rule[]): Problem[] {
  const problems: Problem[] = [];
  const told = new Set<AddressEntry>();
  const claims = rules
    .flatMap((rule) =>
      rule.addresses.flatMap((entry) => entry.ranges.map((range) => ({ entry, range, rule }))),
    )
    .sort((a, b) => a.range.first - b.range.first);
  for (let i = 0; i < claims.length; i++) {
    const a = claims[i]!;
    // Sorted by their first address: after one that begins behind our last there is none that we meet.
    for (let j = i + 1; j < claims.length && claims[j]!.range.first <= a.range.last; j++) {
      const b = claims[j]!;
      if (a.rule === b.rule || !(a.entry.exclusive || b.entry.exclusive) || !overlap(a, b))
        continue;
      const [early, late] = a.entry.at.line <= b.entry.at.line ? [a, b] : [b, a];
      if (told.has(late.entry)) continue;
      told.add(late.entry);
      problems.push(contested(early, late));
    }
    if (problems.length > LIMITS.policyProblemsMax) break;
  }
  return problems;
}

function contested(early: Claim, late: Claim): Problem {
  const first = Math.max(early.range.first, late.range.first);
  const last = Math.min(early.range.last, late.range.last);
  const { kind, name } = early.rule.subject;
  const whose = `${kind} "${name}", line ${early.entry.at.line}`;
  const text = early.entry.exclusive
    ? `${formatAddresses({ first, last })} is exclusively for ${whose}`
    : `exclusive, but ${formatAddresses({ first, last })} is also given to ${whose}`;
  return problemAt(late.entry.at, text, 'take it from one of them, or leave out exclusive');
}

function warn(at: { line: number; column: number }, message: string, hint: string): Problem {
  return problemAt(at, message, hint, 'warning');
}

function checkSubject({ subject, at }: Rule, environment: PolicyEnvironment): Problem[] {
  if (subject.kind === 'user' && subject.id === 0) {
    return [warn(at, 'root has everything without a rule', 'remove it')];
  }
  if (subject.kind !== 'program') return [];
  const state = environment.program(subject.path);
  if (state === 'absent') {
    return [warn(at, `there is no program ${subject.path} now`, 'see whether the path is right')];
  }
  if (state === 'writable') {
    const text = `others than root may change ${subject.path}, and so what has these capabilities`;
    return [warn(at, text, `chown root ${subject.path}; chmod go-w ${subject.path}`)];
  }
  if (state === 'ok') return [];
  const text = `${subject.path} is a link: no process will ever show this path`;
  return [warn(at, text, `write ${state.linkTo}`)];
}

function checkDevices(rule: Rule, environment: PolicyEnvironment): Problem[] {
  const problems: Problem[] = [];
  const networks: Interval[] = [];
  let complete = rule.devices.length > 0;
  for (const { name, at } of rule.devices) {
    const known = environment.device(name);
    if (known === null) {
      problems.push(warn(at, `there is no device ${name} now`, 'soft0, or see `ip link`'));
    }
    networks.push(...(known ?? []));
    complete &&= known !== null && known.length > 0;
  }
  for (const { device, ranges, at } of rule.addresses) {
    const own = device === ANY_OBJECT ? null : environment.device(device);
    if (device !== ANY_OBJECT && own === null) {
      problems.push(warn(at, `there is no device ${device} now`, 'soft0, or see `ip link`'));
    }
    if (device === ANY_OBJECT ? !complete : own === null || own.length === 0) continue;
    const { first, last } = ranges[0]!;
    if (first === 0 || (own ?? networks).some((net) => net.first <= first && last <= net.last)) {
      continue;
    }
    const shown = (own ?? networks).map(
      (net) => `${formatIpv4(net.first)}-${formatIpv4(net.last)}`,
    );
    const text = `${formatAddresses({ first, last })} is not in a network of its devices`;
    problems.push(warn(at, text, `they have ${shown.join(', ')}`));
  }
  return problems;
}

function checkCores({ cores, at }: Rule, { processors }: PolicyEnvironment): Problem[] {
  const beyond = cores.filter((cpu) => cpu >= processors);
  if (beyond.length === 0) return [];
  const hint = `it has 0 to ${processors - 1}`;
  return [warn(at, `this machine has no processor ${beyond.join(',')}`, hint)];
}

/** A VNIC takes a device, addresses on it and a rate; another rule of the same domain may give what this one lacks. */
function checkComplete({ devices, addresses, rate, at }: Rule): Problem[] {
  if (devices.length === 0) return [];
  const lacking = [
    ...(addresses.length === 0 ? ['addresses'] : []),
    ...(rate === null ? ['a rate'] : []),
  ];
  if (lacking.length === 0) return [];
  const hint = 'a VNIC takes all three; rate: any sets no bound. Fine when another rule gives it';
  return [warn(at, `devices without ${lacking.join(' and ')}`, hint)];
}
