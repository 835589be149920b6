/**
 * Entry of the keeper's process: `node dist/src/keeper/main.js --keep-ms=MS`, started by the daemon with the listening
 * socket as descriptor 3. It outlives the daemon, and ends by itself when no other one came in time.
 */
import { parseArgs } from 'node:util';
import { capabilitiesOf, execute, limitCapabilities } from '../ffi/capabilities.ts';
import { setCloseOnExec, setNonBlocking } from '../ffi/fd.ts';
import { setNoNewPrivileges } from '../ffi/process.ts';
import { Keeper } from './store.ts';

const LISTEN_FD = 3;
const MARK = 'ARRAKIS_CAPABILITIES_DROPPED';

/** Root's keeper needs none of root's capabilities. It executes itself once to be rid of them in every thread. */
function dropCapabilities(): void {
  const again = process.env[MARK] !== undefined;
  const held = capabilitiesOf('self').some(({ bounding }) => bounding.length > 0);
  if (process.getuid!() !== 0 || again || !held || !limitCapabilities([])) return;
  setCloseOnExec(LISTEN_FD, false);
  const argv = [process.argv0, ...process.execArgv, ...process.argv.slice(1)];
  execute(process.execPath, argv, { ...process.env, [MARK]: '1' });
}

const { values } = parseArgs({ options: { 'keep-ms': { type: 'string' } } });
const keepMs = Number(values['keep-ms']);
dropCapabilities();
setNoNewPrivileges();
setCloseOnExec(LISTEN_FD);
setNonBlocking(LISTEN_FD);
new Keeper({ listenFd: LISTEN_FD, keepMs, clock: () => performance.now() }).run();
process.exit(0);
