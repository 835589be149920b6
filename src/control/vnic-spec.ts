/**
 * What a VNIC is to be, in the form that people type and in the form that the protocol carries.
 *
 *   DEVICE[,ip=10.0.0.2/24][,gw=10.0.0.1][,port=udp:7]...[,filter=TEXT]...[,mode=direct|switched][,queue=N][,queues=N][,name=x]
 *          [,frames=N][,rate=100M][,pps=50k][,weight=3]
 *
 * `soft0,ip=10.77.0.2/24`, `eth1,mode=switched,port=udp:7,port=tcp:80-90`.
 * `parseVnicSpec` and `formatVnicSpec` are inverses; `vnicSpecSchema` is the gate for specs from another process.
 */
import { z } from 'zod';
import { formatIpv4, parseCidr, parseIpv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  bitsPerSecondSchema,
  formatRate,
  packetsPerSecondSchema,
  parseRate,
  weightSchema,
} from '../device/rate.ts';
import { FILTER_LIMITS } from '../filter/limits.ts';
import { LIMITS } from './limits.ts';

const uint32 = z.int().min(0).max(0xffffffff);
const port = z.int().min(0).max(65535);

/** Names of devices, VNICs and domains: as for network interfaces, visible ASCII without slash, comma and colon. */
export const nameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_.@-]+$/)
  .max(LIMITS.nameLengthMax);

export const portRangeSchema = z
  .strictObject({ protocol: z.enum(['udp', 'tcp']), first: port, last: port })
  .refine((range) => range.first <= range.last, 'the first port is not above the last');

export const vnicSpecSchema = z.strictObject({
  device: nameSchema.describe("'soft0' or the name of an interface"),
  name: nameSchema.optional().describe('what the domain calls it; default: chosen by the daemon'),
  address: uint32.optional().describe('IPv4 address; default: the shared address of the interface'),
  prefix: z.int().min(0).max(32).optional().describe('prefix length; default: as the device has'),
  gateway: uint32.optional().describe('IPv4 address of the router'),
  ports: z
    .array(portRangeSchema)
    .max(LIMITS.filtersPerVnicMax)
    .optional()
    .describe('ports received on a shared address'),
  filters: z
    .array(z.string().max(FILTER_LIMITS.textMax))
    .max(LIMITS.filtersPerVnicMax)
    .optional()
    .describe('what is received on a shared address, besides ports: filters as text'),
  mode: z.enum(['direct', 'switched']).optional().describe('AF_XDP only; default: switched'),
  queue: z
    .int()
    .min(0)
    .max(4095)
    .optional()
    .describe('queue of the interface, mode direct; with queues=, the first'),
  queues: z
    .int()
    .min(1)
    .max(LIMITS.queuesPerVnicMax)
    .optional()
    .describe('queue pairs, one for each thread; default: 1'),
  frames: z
    .int()
    .min(LIMITS.framesMin)
    .max(LIMITS.framesMax)
    .refine((n) => (n & (n - 1)) === 0, 'a power of two')
    .optional()
    .describe('packet buffers of each queue pair, a power of two'),
  bitsPerSecond: bitsPerSecondSchema
    .optional()
    .describe('limit in each direction; default: none, or what its domain may have'),
  packetsPerSecond: packetsPerSecondSchema.optional().describe('the same in packets'),
  weight: weightSchema.optional().describe('share of what senders contend for; default: 1'),
});

export type VnicSpec = z.infer<typeof vnicSpecSchema>;
export type PortRange = z.infer<typeof portRangeSchema>;

/** The text form, for hints and help. */
export const VNIC_SPEC_FORM =
  'DEVICE[,ip=10.0.0.2/24][,gw=IP][,port=udp:7][,filter=TEXT][,mode=direct|switched][,queue=N][,queues=N][,name=x][,frames=N][,rate=100M][,pps=50k][,weight=N]';

function bad(text: string, what: string): ArrakisError {
  return new ArrakisError('ARK_BAD_ARGUMENT', `VNIC spec "${text}": ${what}`, {
    hint: `write it as ${VNIC_SPEC_FORM}`,
  });
}

function parseNumber(text: string, spec: string, what: string): number {
  if (!/^\d{1,9}$/.test(text)) throw bad(spec, `${what} "${text}" is not a number`);
  return Number(text);
}

function parseLimit(text: string, spec: string, what: string): number {
  try {
    return parseRate(text, what);
  } catch (error) {
    throw bad(spec, (error as Error).message);
  }
}

function parsePorts(text: string, spec: string): PortRange {
  const match = /^(udp|tcp):(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) throw bad(spec, `port "${text}" is not like udp:7 or tcp:80-90`);
  const first = Number(match[2]);
  return {
    protocol: match[1] as 'udp' | 'tcp',
    first,
    last: match[3] === undefined ? first : Number(match[3]),
  };
}

/** The text form; throws ARK_BAD_ARGUMENT with the form as hint. */
export function parseVnicSpec(text: string): VnicSpec {
  const [device = '', ...parts] = text.split(',');
  const spec: VnicSpec = { device };
  for (const part of parts) {
    const at = part.indexOf('=');
    const key = at < 0 ? part : part.slice(0, at);
    const value = at < 0 ? '' : part.slice(at + 1);
    if (key === 'ip') {
      const { address, prefix } = parseCidr(value);
      spec.address = address;
      if (value.includes('/')) spec.prefix = prefix;
    } else if (key === 'gw') spec.gateway = parseIpv4(value);
    else if (key === 'port') spec.ports = [...(spec.ports ?? []), parsePorts(value, text)];
    else if (key === 'filter') spec.filters = [...(spec.filters ?? []), value];
    else if (key === 'mode') spec.mode = value as 'direct' | 'switched';
    else if (key === 'queue') spec.queue = parseNumber(value, text, 'queue');
    else if (key === 'queues') spec.queues = parseNumber(value, text, 'queues');
    else if (key === 'frames') spec.frames = parseNumber(value, text, 'frames');
    else if (key === 'rate') spec.bitsPerSecond = parseLimit(value, text, 'rate');
    else if (key === 'pps') spec.packetsPerSecond = parseLimit(value, text, 'pps');
    else if (key === 'weight') spec.weight = parseNumber(value, text, 'weight');
    else if (key === 'name') spec.name = value;
    else throw bad(text, `"${part}" is not known`);
  }
  const checked = vnicSpecSchema.safeParse(spec);
  if (!checked.success) {
    const issue = checked.error.issues[0]!;
    throw bad(text, `${issue.path.join('.')}: ${issue.message}`);
  }
  return checked.data;
}

/** The text form of `spec`. */
export function formatVnicSpec(spec: VnicSpec): string {
  let text = spec.device;
  if (spec.address !== undefined) {
    text += `,ip=${formatIpv4(spec.address)}${spec.prefix === undefined ? '' : `/${spec.prefix}`}`;
  }
  if (spec.gateway !== undefined) text += `,gw=${formatIpv4(spec.gateway)}`;
  for (const { protocol, first, last } of spec.ports ?? []) {
    text += `,port=${protocol}:${first}${last === first ? '' : `-${last}`}`;
  }
  for (const filter of spec.filters ?? []) text += `,filter=${filter}`;
  if (spec.mode !== undefined) text += `,mode=${spec.mode}`;
  if (spec.queue !== undefined) text += `,queue=${spec.queue}`;
  if (spec.queues !== undefined) text += `,queues=${spec.queues}`;
  if (spec.name !== undefined) text += `,name=${spec.name}`;
  if (spec.frames !== undefined) text += `,frames=${spec.frames}`;
  if (spec.bitsPerSecond !== undefined) text += `,rate=${formatRate(spec.bitsPerSecond)}`;
  if (spec.packetsPerSecond !== undefined) text += `,pps=${formatRate(spec.packetsPerSecond)}`;
  if (spec.weight !== undefined) text += `,weight=${spec.weight}`;
  return text;
}
