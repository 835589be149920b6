/**
 * Where a daemon lives, for the daemon and for those who look for one: the run directory and what lies in it.
 *
 *   DIR/control.sock    the control socket        DIR/arrakisd.pid   locked by the daemon, its pid inside
 *   DIR/arrakisd.log    its log, when asked for   DIR/ports/         vhost-user sockets of `vnic.listen`
 *   DIR/journal         what it has (journal.ts)  DIR/keeper.sock    the keeper of its descriptors
 */
import path from 'node:path';

export const ROOT_DIRECTORY = '/run/arrakis';

/** In the environment of a supervisor: the run directory of its daemon (supervisor.ts, leftovers.ts). */
export const SUPERVISOR_VARIABLE = 'ARRAKIS_SUPERVISOR_OF';

/** The run directory of a daemon run by `uid`: `ARRAKIS_DIR`, else the place for that user. */
export function runDirectory(uid: number, env: NodeJS.ProcessEnv = process.env): string {
  if (env.ARRAKIS_DIR) return path.resolve(env.ARRAKIS_DIR);
  if (uid === 0) return ROOT_DIRECTORY;
  if (env.XDG_RUNTIME_DIR) return path.join(env.XDG_RUNTIME_DIR, 'arrakis');
  return `/tmp/arrakis-${uid}`;
}

export const socketPath = (dir: string): string => path.join(dir, 'control.sock');
export const pidPath = (dir: string): string => path.join(dir, 'arrakisd.pid');
export const logPath = (dir: string): string => path.join(dir, 'arrakisd.log');
export const journalPath = (dir: string): string => path.join(dir, 'journal');
export const keeperPath = (dir: string): string => path.join(dir, 'keeper.sock');
export const portsPath = (dir: string): string => path.join(dir, 'ports');

/** Sockets that a client of user `uid` tries, best first. */
export function socketCandidates(uid: number, env: NodeJS.ProcessEnv = process.env): string[] {
  if (env.ARRAKIS_SOCKET) return [env.ARRAKIS_SOCKET];
  const own = socketPath(runDirectory(uid, env));
  return env.ARRAKIS_DIR || uid === 0 ? [own] : [own, socketPath(ROOT_DIRECTORY)];
}
