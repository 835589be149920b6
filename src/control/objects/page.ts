/** Lists that may outgrow a message, page by page. */
import { LIMITS } from '../limits.ts';

/** Left for the reply's envelope and what else is in it. */
const ENVELOPE_BYTES = 2048;
/** Messages are UTF-8, and lengths here are of strings: names are ASCII, error texts may not be. */
const PAGE_CHARACTERS = (LIMITS.messageBytesMax - ENVELOPE_BYTES) / 2;

/** The first of `items`, described, whose JSON fits on a page. At least one, so that paging ends. */
export function page<T, U>(
  items: readonly T[],
  describe: (item: T) => U,
): { first: U[]; omitted: number } {
  const first: U[] = [];
  let characters = 0;
  for (const item of items) {
    const described = describe(item);
    characters += JSON.stringify(described).length + 1;
    if (first.length > 0 && characters > PAGE_CHARACTERS) break;
    first.push(described);
  }
  return { first, omitted: items.length - first.length };
}
