/**
 * Requests made from the table of the protocol: for every operation its fields, of their types, with handles that are
 * there; then, often, something wrong with it.
 */
import { z } from 'zod';
import { OPERATIONS } from '../../../src/control/protocol.ts';
import type { Random } from '../../support/random.ts';

interface Schema {
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
}

const EDGES = [0, 1, 2, 63, 64, 255, 256, 1023, 4095, 4096, 65535, 65536, 2 ** 31, 2 ** 32 - 1];
const TEXTS = [
  'soft0',
  'adv0',
  'any',
  '*',
  '/app',
  '/app/fuzz',
  '/app/fuzz/a',
  '/app/fuzz/a/b',
  '/net/soft0',
  '/',
  'udp dst port 7',
  'dst host 10.77.0.34',
  'udp dst portrange 1-9 and dst host 10.77.0.35 and not src net 10.0.0.0/8',
  'use',
  'read',
  'write',
  'connect',
  'open',
  'grant',
  'fuzz',
] as const;
/** What is seldom a value of anything. */
const WRONG: readonly unknown[] = [
  -1,
  1.5,
  2 ** 53,
  1e308,
  '',
  '../x',
  '\u0000',
  'é'.repeat(300),
  'x'.repeat(5000),
  'constructor',
  '__proto__',
  null,
  true,
  [],
  {},
  [[[]]],
  new Array(300).fill(7),
];

const SCHEMAS = Object.entries(OPERATIONS).map(
  ([op, { args }]) =>
    [op, z.toJSONSchema(args, { unrepresentable: 'any', io: 'input' }) as Schema] as const,
);

/** Values that somebody once got in an answer: some are still handles. */
export class Pool {
  readonly #random: Random;
  readonly #handles: number[] = [];
  #next = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  learn(value: unknown): void {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) {
      this.#handles[this.#next++ % 256] = value;
    } else if (typeof value === 'object' && value !== null) {
      for (const inner of Object.values(value).slice(0, 8)) this.learn(inner);
    }
  }

  handle(): number {
    return this.#handles.length === 0 ? 1 : this.#random.pick(this.#handles);
  }
}

function makeValue(schema: Schema, random: Random, pool: Pool): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return random.pick(schema.enum);
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches !== undefined) return makeValue(random.pick(branches), random, pool);
  const type = Array.isArray(schema.type) ? random.pick(schema.type) : schema.type;
  switch (type) {
    case 'object': {
      const made: Record<string, unknown> = {};
      for (const [name, inner] of Object.entries(schema.properties ?? {})) {
        if (schema.required?.includes(name) || random.oneIn(3)) {
          made[name] = makeValue(inner, random, pool);
        }
      }
      return made;
    }
    case 'array':
      return Array.from({ length: random.below(4) }, () =>
        makeValue(schema.items ?? {}, random, pool),
      );
    case 'integer':
    case 'number': {
      if (!random.oneIn(3)) return pool.handle();
      const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = schema;
      return Math.min(maximum, Math.max(minimum, random.pick([...EDGES, minimum, maximum])));
    }
    case 'boolean':
      return random.oneIn(2);
    case 'null':
      return null;
    default:
      return random.pick(TEXTS);
  }
}

/** Change something somewhere in `value`, in place. */
function spoil(value: Record<string, unknown>, random: Random): void {
  const keys = Object.keys(value);
  if (keys.length === 0) return;
  const key = random.pick(keys);
  const inner = value[key];
  if (typeof inner === 'object' && inner !== null && !Array.isArray(inner) && random.oneIn(2)) {
    spoil(inner as Record<string, unknown>, random);
    return;
  }
  const how = random.below(8);
  if (how < 2) delete value[key];
  else if (how < 4) value[random.pick(['extra', 'id', 'op', '__proto__'])] = random.pick(WRONG);
  else value[key] = random.pick(WRONG);
}

/** The next message, as bytes. Three in four are well formed. */
export function nextMessage(random: Random, pool: Pool, id: number): Buffer {
  const [op, schema] = random.pick(SCHEMAS);
  const request = { id, op, ...(makeValue(schema, random, pool) as object) };
  if (op === 'hello') Object.assign(request, { protocol: 1 });
  if (random.oneIn(4)) spoil(request, random);
  const bytes = Buffer.from(JSON.stringify(request));
  if (random.oneIn(40)) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
  if (random.oneIn(60)) return bytes.subarray(0, 1 + random.below(bytes.length));
  return bytes;
}
