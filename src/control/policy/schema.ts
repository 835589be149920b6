/** The shape of a policy file, from strings to values. Every issue has the path of what it is about. */
import { z } from 'zod';
import { parseCpus } from '../../base/cpus.ts';
import { ArrakisError } from '../../base/errors.ts';
import {
  BITS_PER_SECOND_MAX,
  BITS_PER_SECOND_MIN,
  PACKETS_PER_SECOND_MAX,
  WEIGHT_MAX,
} from '../../device/rate.ts';
import type { AddressRange, RateRange } from '../caps/range.ts';
import { LIMITS } from '../limits.ts';
import { nameSchema } from '../vnic-spec.ts';
import {
  parseAddresses,
  parseBytes,
  parseCount,
  parseFlag,
  parsePorts,
  parseRateWithin,
} from './values.ts';

/** Rights to a directory of names, by the word for them. */
export const ACCESS = ['read', 'write'] as const;
export type Access = (typeof ACCESS)[number];

/** A scalar that `parse` reads; what it throws becomes the issue. */
function word<T>(what: string, parse: (text: string) => T) {
  return z.string({ error: `${what} is one word or number here` }).transform((text, context): T => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof ArrakisError)) throw error;
      const { message, hint } = error;
      context.addIssue({ code: 'custom', message, params: { hint } });
      return z.NEVER;
    }
  });
}

/** A table with these keys and no others; unknown ones are told which there are. */
function table<S extends z.ZodRawShape>(what: string, shape: S) {
  const keys = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? `${what} has ${keys}` : `${what} is a table of ${keys}`,
  });
}

const list = <T extends z.ZodType>(what: string, item: T) =>
  z.array(item, { error: `${what} is a list: write it in [ ], or each in a line after a "-"` });

/** A table whose keys are names. */
const tableOf = <T extends z.ZodType>(what: string, key: string, value: T) =>
  z.record(z.string(), value, { error: `${what} is a table by ${key}` });

const refuse = (message: string, hint: string): never => {
  throw new ArrakisError('ARK_POLICY', message, { hint });
};

const deviceName = word('a device', (text) => {
  if (nameSchema.safeParse(text).success) return text;
  return refuse(`"${text.slice(0, 40)}" is no name of a device`, 'such as soft0 or eth1');
});

const deviceSchema = z.preprocess(
  (value) => (typeof value === 'string' ? { name: value } : value),
  table('a device', { name: deviceName, direct: word('direct', parseFlag).default(false) }),
);

const PROTOCOLS = ['udp', 'tcp', 'icmp', 'any'] as const;
const protocol = word('a protocol', (text) => {
  const known = PROTOCOLS.find((one) => one === text);
  return known ?? refuse(`there is no protocol "${text.slice(0, 40)}"`, PROTOCOLS.join(', '));
});

const addressesSchema = z.preprocess(
  (value) => (typeof value === 'string' ? { range: value } : value),
  table('an entry of addresses', {
    range: word('a range', parseAddresses),
    device: deviceName.default('*'),
    protocol: protocol.default('any'),
    ports: word('ports', parsePorts).optional(),
    exclusive: word('exclusive', parseFlag).default(false),
  })
    .superRefine((entry, context) => {
      if (entry.ports === undefined || entry.protocol === 'udp' || entry.protocol === 'tcp') return;
      const message = `${entry.protocol === 'icmp' ? 'icmp has no ports' : 'ports without a protocol'}`;
      const params = { hint: 'say protocol: udp or protocol: tcp, or leave the ports out' };
      context.addIssue({ code: 'custom', path: ['ports'], message, params });
    })
    .transform(({ range, device, protocol, ports, exclusive }) => {
      const ranges = (ports ?? [{ first: 0, last: 65535 }]).map(
        ({ first, last }): AddressRange => ({
          ...range,
          protocol,
          portFirst: first,
          portLast: last,
        }),
      );
      return { device, exclusive, ranges };
    }),
);

/** A bound, or `any` for none. */
const bound = (what: string, parse: (text: string) => number) =>
  word(what, (text) => (text === 'any' ? null : parse(text)));

const rateSchema = z.preprocess(
  (value) => (value === 'any' ? { bits: 'any', packets: 'any', weight: 'any' } : value),
  table('a rate that is not "any"', {
    bits: bound('bits', (text) =>
      parseRateWithin(text, 'bits', BITS_PER_SECOND_MIN, BITS_PER_SECOND_MAX),
    ).default(null),
    packets: bound('packets', (text) =>
      parseRateWithin(text, 'packets', 1, PACKETS_PER_SECOND_MAX),
    ).default(null),
    weight: bound('weight', (text) => parseCount(text, WEIGHT_MAX)).default(1),
  }).transform(
    ({ bits, packets, weight }): RateRange => ({
      bitsPerSecond: bits,
      packetsPerSecond: packets,
      weight,
    }),
  ),
);

const access = word('a right to names', (text) => {
  const known = ACCESS.find((one) => one === text);
  return known ?? refuse(`"${text.slice(0, 40)}" is no right to names`, ACCESS.join(' or '));
});

export const ruleSchema = table('a rule', {
  vnics: word('vnics', (text) => parseCount(text, LIMITS.vnicsMax)).optional(),
  devices: list('devices', deviceSchema).default([]),
  addresses: list('addresses', addressesSchema).default([]),
  rate: rateSchema.optional(),
  cores: word('cores', parseCpus).optional(),
  pools: tableOf('pools', 'their names', word('a size', parseBytes)).default({}),
  names: tableOf('names', 'their directories', access).default({}),
  grant: word('grant', parseFlag).default(false),
});

export const policySchema = table('a policy', {
  users: tableOf('users', 'their names or uids', ruleSchema).default({}),
  groups: tableOf('groups', 'their names or gids', ruleSchema).default({}),
  programs: tableOf('programs', 'their absolute paths', ruleSchema).default({}),
});

export type RuleInput = z.infer<typeof ruleSchema>;
export type PolicyInput = z.infer<typeof policySchema>;
