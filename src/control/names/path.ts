/** Paths of the name tree: absolute, `/app/kv/shard-1`. What could be read in two ways is refused, not repaired. */
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';

// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is refused
const CONTROL = /[\u0000-\u001f\u007f]|\p{Surrogate}/u;

/** The parts of `path`; none for the root. ARK_BAD_ARGUMENT. */
export function parsePath(path: string): string[] {
  if (!path.startsWith('/')) throw bad(path, 'it does not begin with /');
  if (Buffer.byteLength(path) > LIMITS.namePathBytesMax) {
    throw bad(path, `it is longer than ${LIMITS.namePathBytesMax} bytes`);
  }
  if (path === '/') return [];
  const parts = path.slice(1).split('/');
  if (parts.length > LIMITS.nameDepthMax) {
    throw bad(path, `it has ${parts.length} parts; ${LIMITS.nameDepthMax} are allowed`);
  }
  for (const part of parts) {
    if (part === '') throw bad(path, 'a part of it is empty');
    if (part === '.' || part === '..') throw bad(path, `"${part}" is no name here`);
    if (CONTROL.test(part)) {
      throw bad(path, 'it has characters that cannot be printed');
    }
    if (Buffer.byteLength(part) > LIMITS.namePartBytesMax) {
      throw bad(path, `a part of it is longer than ${LIMITS.namePartBytesMax} bytes`);
    }
  }
  return parts;
}

const SHOWN_MAX = 80;

function bad(path: string, what: string): ArrakisError {
  const shown = JSON.stringify(path.length > SHOWN_MAX ? `${path.slice(0, SHOWN_MAX)}…` : path);
  return new ArrakisError('ARK_BAD_ARGUMENT', `${shown} is no path of names: ${what}`, {
    hint: 'write it as /app/NAME',
  });
}
