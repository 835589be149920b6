/** What nobody can guess, for `NetInterface`: TCP makes sequence numbers and cookies of it (RFC 6528, RFC 4987). */
import { randomFillSync } from 'node:crypto';

export const newSecret = (): Int32Array => randomFillSync(new Int32Array(4));
