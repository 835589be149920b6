/** docs/protocol.md, made from the table in protocol.ts. A test holds the committed file to it. */
import { z } from 'zod';
import { ERROR_CODES } from '../base/errors.ts';
import { LIMITS } from './limits.ts';
import type { Caller } from './protocol/schemas.ts';
import { EVENTS, OPERATIONS, PROTOCOL_VERSION } from './protocol.ts';

const CALLERS: Record<Caller, string> = {
  anyone: 'anyone who can connect',
  domain: 'a domain (after `hello`)',
  privileged: "root or the daemon's own user",
};

interface JsonSchema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: JsonSchema[];
  items?: JsonSchema;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  maxItems?: number;
  description?: string;
}

/** A type in a few words: `integer 0..65535`, `array of object`. */
function typeText(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.map((v) => `\`${String(v)}\``).join(' or ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeText).join(' or ');
  if (schema.type === 'array') {
    const most = schema.maxItems === undefined ? '' : `, at most ${schema.maxItems}`;
    return `array of ${typeText(schema.items ?? {})}${most}`;
  }
  const type = String(schema.type ?? 'anything');
  if (type === 'integer' || type === 'number') return `${type}${rangeText(schema)}`;
  if (schema.maxLength !== undefined) return `${type}, at most ${schema.maxLength} characters`;
  return type;
}

function rangeText({ minimum, maximum }: JsonSchema): string {
  const low = minimum === undefined || minimum <= Number.MIN_SAFE_INTEGER ? '' : String(minimum);
  const high = maximum === undefined || maximum >= Number.MAX_SAFE_INTEGER ? '' : String(maximum);
  return low === '' && high === '' ? '' : ` ${low}..${high}`;
}

/** Rows of a table of fields; those of nested objects as `spec.device`, of arrays as `vnics[].device`. */
function fieldRows(schema: JsonSchema, prefix = ''): string[] {
  const rows: string[] = [];
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const optional = schema.required?.includes(name) === true ? '' : ' (optional)';
    const about = field.description === undefined ? '' : field.description.replaceAll('|', '\\|');
    rows.push(`| \`${prefix}${name}\`${optional} | ${typeText(field)} | ${about} |`);
    rows.push(...fieldRows(field, `${prefix}${name}.`));
    if (field.items !== undefined) rows.push(...fieldRows(field.items, `${prefix}${name}[].`));
  }
  return rows;
}

function fields(title: string, schema: z.ZodType, io: 'input' | 'output'): string[] {
  const rows = fieldRows(z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as JsonSchema);
  if (rows.length === 0) return [`${title}: no fields.`, ''];
  return [`${title}:`, '', '| field | type | |', '| --- | --- | --- |', ...rows, ''];
}

function operationText(op: keyof typeof OPERATIONS): string[] {
  const { doc, caller, args, reply, requestFds, replyFds, errors } = OPERATIONS[op];
  const lines = [`### ${op}`, '', doc, '', `Caller: ${CALLERS[caller]}.`, ''];
  lines.push(...fields('Request', args, 'input'), ...fields('Reply', reply, 'output'));
  if (requestFds.length > 0)
    lines.push(`Descriptors with the request: ${requestFds.join(', ')}.`, '');
  if (replyFds.length > 0) lines.push(`Descriptors with the reply: ${replyFds.join(', ')}.`, '');
  if (errors.length > 0) lines.push(`Errors: ${errors.map((e) => `\`${e}\``).join(', ')}.`, '');
  return lines;
}

/** The whole document. */
export function protocolDocument(): string {
  const lines = [
    '# The control protocol',
    '',
    '<!-- Made from src/control/protocol.ts by src/control/protocol-doc.ts; do not edit. -->',
    '',
    `Version ${PROTOCOL_VERSION}. A \`SOCK_SEQPACKET\` Unix socket; one JSON object a message, at most ` +
      `${LIMITS.messageBytesMax} bytes; descriptors by \`SCM_RIGHTS\`, at most ${LIMITS.messageFdsMax}.`,
    '',
    '- Only root and the daemon’s own user send descriptors, over connections of their own: from others, and over ' +
      'prepared channels, the kernel refuses them with EPERM (`SO_PASSRIGHTS`, Linux 6.16 and later).',
    '- Request: `{"id": 1, "op": "list", ...}`. `id` is the caller’s, from 1 up; fields that are not listed are refused.',
    '- Reply: `{"id": 1, "ok": true, ...}` or `{"id": 1, "ok": false, "error": {"code", "message", "hint"?}}`. ' +
      'A message that cannot be read is answered with id 0.',
    '- Event: `{"event": "vnic.gone", ...}`, at any time.',
    '- Requests of one connection are answered in order. Closing the connection gives back all that its domain had.',
    '- Any request may be answered with `ARK_BAD_MESSAGE`, `ARK_NOT_PERMITTED` or `ARK_INTERNAL`.',
    '',
    '## Operations',
    '',
  ];
  for (const op of Object.keys(OPERATIONS))
    lines.push(...operationText(op as keyof typeof OPERATIONS));
  lines.push('## Events', '');
  for (const [name, { doc, fields: schema, fds }] of Object.entries(EVENTS)) {
    lines.push(`### ${name}`, '', doc, '', ...fields('Fields', schema, 'output'));
    if (fds.length > 0) lines.push(`Descriptors: ${fds.join(', ')}.`, '');
  }
  lines.push('## Error codes', '', '| code | meaning |', '| --- | --- |');
  for (const [code, text] of Object.entries(ERROR_CODES)) lines.push(`| \`${code}\` | ${text} |`);
  lines.push('', '## Limits', '', '| limit | value |', '| --- | --- |');
  for (const [name, value] of Object.entries(LIMITS)) lines.push(`| \`${name}\` | ${value} |`);
  lines.push('');
  return lines.join('\n');
}
