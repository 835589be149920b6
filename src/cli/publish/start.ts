/** Starts the process that passes on published ports, as a domain of the same user beside the program. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type Domain, formatIpv4, type VnicSpec } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeFd } from '../../ffi/fd.ts';
import type { User } from '../users.ts';
import { formatPublish, type PublishSpec } from './spec.ts';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));
const CHANNEL_FD = 3;
const SOFT_NIC = 'soft0';

/**
 * Resolves when every port is open: the child, which ends when its standard input is closed. Rejects with ARK_USAGE when no
 * VNIC of `vnics` can be reached so, with ARK_DEVICE when the child gave up: it has said why.
 */
export async function startPublish(
  domain: Domain,
  specs: readonly PublishSpec[],
  vnics: readonly VnicSpec[],
  user: User,
  env: NodeJS.ProcessEnv,
): Promise<ChildProcess> {
  const vnic = vnics.find(({ device }) => device === SOFT_NIC);
  if (vnic?.address === undefined) {
    throw new ArrakisError('ARK_USAGE', '--publish leads to a VNIC of the software NIC', {
      hint: 'give the program one with an address, such as --vnic soft0,ip=10.77.0.2/24',
    });
  }
  const { fds } = await domain.request('domain.prepare', {
    name: 'publish',
    uid: user.uid,
    gid: user.gid,
    vnics: [{ device: SOFT_NIC }],
  });
  const channel = fds[0]!;
  try {
    const args = [MAIN, formatIpv4(vnic.address), ...specs.map(formatPublish)];
    const child = spawn(process.execPath, args, {
      stdio: ['pipe', 'pipe', 'inherit', channel],
      env: { ...env, ARRAKIS_FD: String(CHANNEL_FD) },
      ...(process.getuid!() === 0 ? { uid: user.uid, gid: user.gid } : {}),
    });
    await Promise.race([
      once(child.stdout!, 'data'),
      once(child, 'exit').then(() => {
        throw new ArrakisError('ARK_DEVICE', 'the ports were not published');
      }),
    ]);
    child.once('exit', (code) => {
      if (code !== 0)
        process.stderr.write('arrakis: the published ports are gone; the program goes on\n');
    });
    return child;
  } finally {
    closeFd(channel);
  }
}
