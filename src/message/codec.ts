/**
 * From values to bytes of a ring and back. `read` gets memory that a hostile peer may change meanwhile: every byte is
 * read once, and text is copied before it is decoded (V8 measures a string and then writes it; in between it must not grow).
 */
import { ArrakisError } from '../base/errors.ts';
import type { LinkMemory } from './layout.ts';

export interface Codec<T> {
  /** Bytes that `value` may take at most. ARK_BAD_ARGUMENT when it cannot be sent. `write` of the same value follows. */
  size(value: T): number;
  /** Write it at byte `at`, where there is room for `size`. The bytes written. */
  write(value: T, memory: LinkMemory, at: number): number;
  /** The value in `length` bytes at `at`. Throws when that is none: the channel closes. */
  read(memory: LinkMemory, at: number, length: number): T;
}

/** Any value that JSON can say. */
export function jsonCodec<T = unknown>(): Codec<T> {
  let text = '';
  let scratch = Buffer.alloc(256);
  return {
    size(value) {
      const made: string | undefined = JSON.stringify(value);
      if (made === undefined) {
        throw new ArrakisError('ARK_BAD_ARGUMENT', `${typeof value} is nothing that JSON can say`, {
          hint: 'send null, a number, a string, a boolean, an array or a plain object',
        });
      }
      text = made;
      return Buffer.byteLength(text);
    },
    write: (_value, memory, at) => memory.bytes.write(text, at, 'utf8'),
    read(memory, at, length) {
      if (scratch.length < length) scratch = Buffer.alloc(2 * length);
      memory.bytes.copy(scratch, 0, at, at + length);
      return JSON.parse(scratch.toString('utf8', 0, length)) as T;
    },
  };
}

const WIDTHS = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, f64: 8 } as const;
export type FieldType = keyof typeof WIDTHS;
export type StructFields = Readonly<Record<string, FieldType>>;
export type StructOf<F extends StructFields> = { [K in keyof F]: number };

export interface StructCodec<F extends StructFields> extends Codec<StructOf<F>> {
  /** Bytes of every message. */
  readonly bytes: number;
  /** As `read`, into an object that is there already: nothing is allocated. */
  readInto(memory: LinkMemory, at: number, length: number, into: StructOf<F>): void;
}

/** Numbers in a fixed layout, little-endian: widest first, then in the order of `fields`. */
export function structCodec<F extends StructFields>(fields: F): StructCodec<F> {
  const names = Object.keys(fields).sort((a, b) => WIDTHS[fields[b]!] - WIDTHS[fields[a]!]);
  const types = names.map((name) => fields[name]!);
  const offsets: number[] = [];
  let bytes = 0;
  for (const type of types) {
    offsets.push(bytes);
    bytes += WIDTHS[type];
  }
  const readInto: StructCodec<F>['readInto'] = (memory, at, length, into) => {
    if (length !== bytes) {
      throw new ArrakisError('ARK_PROTOCOL', `a message of ${length} bytes instead of ${bytes}`, {
        hint: 'both sides need the same fields',
      });
    }
    const out = into as Record<string, number>;
    for (let i = 0; i < names.length; i++) {
      out[names[i]!] = getField(memory.view, types[i]!, at + offsets[i]!);
    }
  };
  return {
    bytes,
    size: () => bytes,
    write(value, memory, at) {
      for (let i = 0; i < names.length; i++) {
        setField(memory.view, types[i]!, at + offsets[i]!, value[names[i]!]!);
      }
      return bytes;
    },
    read(memory, at, length) {
      const into = Object.fromEntries(names.map((name) => [name, 0])) as StructOf<F>;
      readInto(memory, at, length, into);
      return into;
    },
    readInto,
  };
}

function getField(view: DataView, type: FieldType, at: number): number {
  switch (type) {
    case 'u8':
      return view.getUint8(at);
    case 'i8':
      return view.getInt8(at);
    case 'u16':
      return view.getUint16(at, true);
    case 'i16':
      return view.getInt16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 'i32':
      return view.getInt32(at, true);
    case 'f32':
      return view.getFloat32(at, true);
    case 'f64':
      return view.getFloat64(at, true);
  }
}

function setField(view: DataView, type: FieldType, at: number, value: number): void {
  switch (type) {
    case 'u8':
    case 'i8':
      view.setUint8(at, value);
      break;
    case 'u16':
    case 'i16':
      view.setUint16(at, value, true);
      break;
    case 'u32':
    case 'i32':
      view.setUint32(at, value, true);
      break;
    case 'f32':
      view.setFloat32(at, value, true);
      break;
    case 'f64':
      view.setFloat64(at, value, true);
      break;
  }
}
