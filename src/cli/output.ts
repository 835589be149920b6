/** Files that commands write. */
import fs from 'node:fs';
import { ArrakisError } from '../base/errors.ts';

/** Make `file` anew: its descriptor, which is the caller's. ARK_USAGE says why it cannot be written. */
export function openOutput(file: string): number {
  try {
    return fs.openSync(file, 'w', 0o644);
  } catch (error) {
    throw new ArrakisError('ARK_USAGE', `cannot write ${file}: ${(error as Error).message}`, {
      hint: 'name another file, in a folder that exists and that you may write',
    });
  }
}
