/** The user database of this machine, read as text (passwd(5), group(5)): names, numbers and memberships. */
import fs from 'node:fs';

/** The last number means "nobody in particular" to setuid(2). */
const ID_MAX = 0xfffffffe;

export interface UserEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

export class UserDatabase {
  readonly #users: readonly UserEntry[];
  readonly #groups: readonly { name: string; gid: number; members: readonly string[] }[];

  /** Lines that are none are passed over, as by the C library. */
  constructor(passwd: string, group: string) {
    this.#users = lines(passwd).flatMap(([name = '', , uid, gid]) => {
      const [u, g] = [parseId(uid), parseId(gid)];
      return name === '' || u === null || g === null ? [] : [{ name, uid: u, gid: g }];
    });
    this.#groups = lines(group).flatMap(([name = '', , id, members = '']) => {
      const gid = parseId(id);
      return name === '' || gid === null ? [] : [{ name, gid, members: members.split(',') }];
    });
  }

  /** /etc/passwd and /etc/group as they are now; users of other sources have to be named by number. */
  static read(): UserDatabase {
    return new UserDatabase(readText('/etc/passwd'), readText('/etc/group'));
  }

  /** Uid of a user by name or number; null when there is no such name. A number need not have a name. */
  uid(text: string): number | null {
    return parseId(text) ?? this.#users.find(({ name }) => name === text)?.uid ?? null;
  }

  /** Likewise the gid of a group. */
  gid(text: string): number | null {
    return parseId(text) ?? this.#groups.find(({ name }) => name === text)?.gid ?? null;
  }

  /** The user's entry, by name or number; null when the database has none. */
  user(text: string): UserEntry | null {
    const uid = parseId(text);
    return this.#users.find((user) => user.name === text || user.uid === uid) ?? null;
  }

  /** Groups that a user gets at login, its own first. */
  groupsOf(user: UserEntry): number[] {
    const others = this.#groups.filter(({ members }) => members.includes(user.name));
    return [...new Set([user.gid, ...others.map(({ gid }) => gid)])];
  }
}

const lines = (text: string): string[][] => text.split('\n').map((line) => line.split(':'));

/** A uid or gid in decimal; null for anything else. */
export function parseId(text: string | undefined): number | null {
  if (text === undefined || !/^(0|[1-9]\d{0,9})$/.test(text)) return null;
  return Number(text) <= ID_MAX ? Number(text) : null;
}

/** Empty where there is no such file. */
function readText(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
