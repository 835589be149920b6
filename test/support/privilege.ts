/**
 * What a test needs of the machine. Where it is missing the test is skipped and says why; with CI=true it fails
 * instead, so that a continuous build cannot lose its tests without anybody noticing.
 */
import { spawnSync } from 'node:child_process';
import type { TestContext } from 'node:test';

/** Only what is used of a TestContext. */
type Skippable = Pick<TestContext, 'skip'>;

const mustRun = (): boolean => process.env.CI === 'true';

/** Why tests that need root cannot run here, or false: for the `skip` option of `describe` and `test`. */
export function rootMissing(): string | false {
  return process.getuid?.() === 0 ? false : missing('needs root');
}

/** False after skipping `t` because we are not root: return from the test then. Throws when CI=true. */
export function requireRoot(t: Skippable): boolean {
  return present(t, rootMissing());
}

/** False after skipping `t` because no program `command` is on the PATH; `packageName` has it. Throws when CI=true. */
export function requirePackage(t: Skippable, command: string, packageName = command): boolean {
  return present(t, packageMissing(command, packageName));
}

/** Why a test that runs `command` cannot run here, or false. */
export function packageMissing(command: string, packageName = command): string | false {
  const found = spawnSync('sh', ['-c', 'command -v "$1"', 'sh', command]).status === 0;
  return found ? false : missing(`needs ${command}: apt-get install ${packageName}`);
}

function missing(reason: string): string {
  if (mustRun()) throw new Error(`CI=true, but this test ${reason}`);
  return reason;
}

function present(t: Skippable, reason: string | false): boolean {
  if (reason === false) return true;
  t.skip(reason);
  return false;
}
