/** An endless sequence of bytes that differs at every offset that a mistake is likely to hit. */
export class Pattern {
  at = 0;

  byte(offset: number): number {
    return (offset ^ (offset >>> 8) ^ (offset >>> 16) ^ Math.imul(offset, 0x9e3779b1)) & 0xff;
  }

  /** The next `count` bytes, without taking them. */
  peek(into: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++) into[i] = this.byte(this.at + i);
  }

  skip(count: number): void {
    this.at += count;
  }

  /** Are the next `length` bytes those at `at` of `bytes`? Takes them. */
  matches(bytes: Uint8Array, at: number, length: number): boolean {
    let isSame = true;
    for (let i = 0; i < length; i++) isSame &&= bytes[at + i] === this.byte(this.at + i);
    this.at += length;
    return isSame;
  }
}
