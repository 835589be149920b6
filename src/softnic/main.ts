/**
 * Entry of the software NIC's process: `node dist/src/softnic/main.js [--user UID:GID]`, started by the control plane
 * with the control channel as descriptor 3. It ends when that channel does: with the daemon and the keeper, not with its
 * parent alone.
 */
import { parseArgs } from 'node:util';
import { ArrakisError } from '../base/errors.ts';
import { monotonicUs32 } from '../ffi/clock.ts';
import { setCloseOnExec } from '../ffi/fd.ts';
import { prepareSignals } from '../ffi/peer-eventfd.ts';
import { setNoNewPrivileges, setTimerSlack } from '../ffi/process.ts';
import { run } from './loop.ts';
import { SoftNic } from './nic.ts';

const CONTROL_FD = 3;

/** Become `uid:gid` for good. */
function dropPrivileges(user: string): void {
  const match = /^(\d+):(\d+)$/.exec(user);
  if (match === null) {
    throw new ArrakisError('ARK_USAGE', `"${user}" is not UID:GID`, {
      hint: 'such as 65534:65534',
    });
  }
  process.setgroups!([]);
  process.setgid!(Number(match[2]));
  process.setuid!(Number(match[1]));
}

const { values } = parseArgs({ options: { user: { type: 'string' } } });
setCloseOnExec(CONTROL_FD);
if (!prepareSignals()) {
  process.stderr.write('no AIO (fs.aio-max-nr): a hostile client may block the software NIC\n');
}
const nic = new SoftNic(CONTROL_FD);
if (values.user !== undefined && process.getuid!() === 0) dropPrivileges(values.user);
setNoNewPrivileges();
// Frames and doorbells wait for their time, and no longer.
setTimerSlack(1);
run(nic, monotonicUs32);
process.exit(0);
