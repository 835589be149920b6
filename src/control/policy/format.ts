/** A policy as the text of a file that gives the same; numbers in place of names. */
import { stringify } from 'yaml';
import { formatRate } from '../../device/rate.ts';
import type { RateRange } from '../caps/range.ts';
import { type AddressEntry, ANY_OBJECT, type Policy, type Rule } from './policy.ts';
import { formatAddresses, formatBytes } from './values.ts';

type Section = 'users' | 'groups' | 'programs';

/** Keys that would say what is so without them are left out. */
const when = <T>(condition: boolean, key: string, value: T) => (condition ? { [key]: value } : {});

export function formatPolicy({ rules }: Policy): string {
  const sections: Partial<Record<Section, Record<string, object>>> = {};
  for (const rule of rules) {
    const { subject } = rule;
    const section: Section = `${subject.kind}s`;
    const name = subject.kind === 'program' ? subject.path : String(subject.id);
    sections[section] ??= {};
    sections[section][name] = formatRule(rule);
  }
  return stringify(sections, { lineWidth: 0 });
}

function formatRule(rule: Rule): object {
  const { vnics, devices, addresses, rate, cores, pools, names, grant } = rule;
  return {
    ...when(vnics !== null, 'vnics', vnics),
    ...when(
      devices.length > 0,
      'devices',
      devices.map(({ name, direct }) => (direct ? { name, direct } : name)),
    ),
    ...when(addresses.length > 0, 'addresses', addresses.map(formatEntry)),
    ...when(rate !== null, 'rate', rate === null ? null : formatLimits(rate)),
    ...when(cores.length > 0, 'cores', cores.join(',')),
    ...when(
      pools.length > 0,
      'pools',
      Object.fromEntries(pools.map(({ name, bytes }) => [name, formatBytes(bytes)])),
    ),
    ...when(
      names.length > 0,
      'names',
      Object.fromEntries(names.map(({ path, access }) => [path, access])),
    ),
    ...when(grant, 'grant', true),
  };
}

function formatEntry({ device, exclusive, ranges }: AddressEntry): object | string {
  const { protocol } = ranges[0]!;
  const range = formatAddresses(ranges[0]!);
  const hasPorts = ranges.some((r) => r.portFirst > 0 || r.portLast < 65535);
  if (device === ANY_OBJECT && protocol === 'any' && !exclusive) return range;
  return {
    range,
    ...when(device !== ANY_OBJECT, 'device', device),
    ...when(protocol !== 'any', 'protocol', protocol),
    ...when(
      hasPorts,
      'ports',
      ranges.map(({ portFirst: a, portLast: b }) => (a === b ? `${a}` : `${a}-${b}`)).join(', '),
    ),
    ...when(exclusive, 'exclusive', true),
  };
}

function formatLimits({ bitsPerSecond, packetsPerSecond, weight }: RateRange): object | string {
  if (bitsPerSecond === null && packetsPerSecond === null && weight === null) return 'any';
  return {
    ...when(bitsPerSecond !== null, 'bits', formatRate(bitsPerSecond ?? 0)),
    ...when(packetsPerSecond !== null, 'packets', formatRate(packetsPerSecond ?? 0)),
    ...when(weight !== 1, 'weight', weight ?? 'any'),
  };
}
