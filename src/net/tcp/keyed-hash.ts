/**
 * A keyed hash of a few words: HalfSipHash (Aumasson and Bernstein, "SipHash: a fast short-input PRF", and its 32-bit form
 * as in the Linux kernel). Peers choose ports and addresses; without the key they cannot choose what they hash to. It makes
 * initial sequence numbers (RFC 6528), timestamp offsets (RFC 7323, section 5.4), SYN cookies (RFC 4987) and the order in
 * which ports are tried (RFC 6056).
 */
import { ArrakisError } from '../../base/errors.ts';

/** Words of a secret. */
export const SECRET_WORDS = 4;

/** What the hash is for: the same words hash differently for each. */
export const PURPOSE = { table: 1, isn: 2, timestamp: 3, port: 4, cookie: 5 } as const;

const rotate = (word: number, by: number): number => (word << by) | (word >>> (32 - by));

export class KeyedHash {
  readonly #k0: number;
  readonly #k1: number;
  #v0 = 0;
  #v1 = 0;
  #v2 = 0;
  #v3 = 0;

  /** ARK_BAD_ARGUMENT unless `secret` is SECRET_WORDS int32 words that nobody can guess. */
  constructor(secret: Int32Array) {
    if (secret.length !== SECRET_WORDS || secret.every((word) => word === 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `a secret is ${SECRET_WORDS} random words`);
    }
    this.#k0 = secret[0]! ^ rotate(secret[2]!, 13);
    this.#k1 = secret[1]! ^ rotate(secret[3]!, 7);
  }

  /** Hash of `count` words from index `at` on, two more, and the purpose. Int32. */
  hash(
    words: Int32Array,
    at: number,
    count: number,
    a: number,
    b: number,
    purpose: number,
  ): number {
    this.#v0 = this.#k0;
    this.#v1 = this.#k1;
    this.#v2 = 0x6c796765 ^ this.#k0;
    this.#v3 = 0x74656462 ^ this.#k1;
    for (let i = at; i < at + count; i++) this.#add(words[i]!);
    this.#add(a);
    this.#add(b);
    this.#add(((count + 2) << 26) | purpose);
    this.#v2 ^= 0xff;
    for (let round = 0; round < 4; round++) this.#round();
    return this.#v1 ^ this.#v3;
  }

  #add(word: number): void {
    this.#v3 ^= word;
    this.#round();
    this.#round();
    this.#v0 ^= word;
  }

  #round(): void {
    let v0 = (this.#v0 + this.#v1) | 0;
    let v1 = rotate(this.#v1, 5) ^ v0;
    v0 = rotate(v0, 16);
    let v2 = (this.#v2 + this.#v3) | 0;
    let v3 = rotate(this.#v3, 8) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = rotate(v3, 7) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = rotate(v1, 13) ^ v2;
    v2 = rotate(v2, 16);
    this.#v0 = v0;
    this.#v1 = v1;
    this.#v2 = v2;
    this.#v3 = v3;
  }
}
