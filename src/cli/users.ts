/** Users by name, as /etc/passwd has them, and whether they can reach a file. */
import fs from 'node:fs';
import path from 'node:path';
import { ArrakisError } from '../base/errors.ts';

export interface User {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

/** The user called `name`, or with that uid. */
export function findUser(name: string): User {
  for (const line of fs.readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [user = '', , uid = '', gid = '', , home = '/'] = line.split(':');
    if (user !== '' && (user === name || uid === name)) {
      return { name: user, uid: Number(uid), gid: Number(gid), home };
    }
  }
  throw new ArrakisError('ARK_USAGE', `there is no user "${name}"`, { hint: 'see /etc/passwd' });
}

/** The first component of `file` that `user` may not pass (or read, for the last), or null when it can reach it. */
export function unreachable(file: string, user: { uid: number; gid: number }): string | null {
  if (user.uid === 0) return null;
  const parts = path.resolve(file).split(path.sep);
  for (let i = 1; i <= parts.length; i++) {
    const here = parts.slice(0, i).join(path.sep) || path.sep;
    const stat = fs.statSync(here);
    const shift = stat.uid === user.uid ? 6 : stat.gid === user.gid ? 3 : 0;
    const wanted = stat.isDirectory() ? 1 : 4;
    if (((stat.mode >> shift) & wanted) === 0) return here;
  }
  return null;
}
