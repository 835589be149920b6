/**
 * Invariants of our own code. Always on: a broken invariant ends the process rather than corrupt a neighbour.
 * Never use it for what a peer, a device or a user wrote; that is validated, counted or refused.
 */
export function assert(condition: boolean, text: string): asserts condition {
  if (!condition) fail(text);
}

function fail(text: string): never {
  throw new AssertionError(text);
}

export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}
