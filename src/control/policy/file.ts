/** The policy file: where it is, and reading it without trusting what stands there. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import type { PolicyEnvironment } from './environment.ts';
import { type Parsed, parsePolicy } from './parse.ts';
import type { Policy } from './policy.ts';
import { type Problem, policyError } from './problem.ts';

const S_IWGRP_IWOTH = 0o022;

/** Where a daemon of `uid` looks when it is not told. */
export function defaultPolicyPath(uid: number, env: NodeJS.ProcessEnv = process.env): string {
  if (uid === 0) return '/etc/arrakis/policy.yaml';
  const config = env.XDG_CONFIG_HOME || path.join(env.HOME || os.homedir(), '.config');
  return path.join(config, 'arrakis', 'policy.yaml');
}

function refuse(file: string, what: string, hint: string): ArrakisError {
  return new ArrakisError('ARK_POLICY', `policy ${file} ${what}`, { hint });
}

/**
 * The text of the policy file. ARK_NOT_FOUND when there is none, ARK_NOT_PERMITTED; ARK_POLICY for what is no text of a sensible size, or
 * could be written by others than root and the user of the daemon: it would be theirs to give.
 */
export function readPolicyFile(file: string): string {
  // Opening a pipe would otherwise wait for its writer.
  const flags = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK;
  let fd: number;
  try {
    fd = fs.openSync(file, flags);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES') {
      throw new ArrakisError('ARK_NOT_PERMITTED', `policy ${file} is not for us to read`, {
        hint: `see ls -l of it and of the directories above; the user is ${process.getuid!()}`,
      });
    }
    if (code !== 'ENOENT') throw refuse(file, `cannot be read: ${code}`, 'see ls -l of it');
    throw new ArrakisError('ARK_NOT_FOUND', `there is no policy ${file}`, {
      hint: 'docs/policy.md says how to write one',
    });
  }
  try {
    return decode(file, readOpened(file, fd));
  } finally {
    fs.closeSync(fd);
  }
}

function readOpened(file: string, fd: number): Buffer {
  const stat = fs.fstatSync(fd);
  if (!stat.isFile()) throw refuse(file, 'is no regular file', 'name one that is');
  const ours = stat.uid === 0 || stat.uid === process.getuid!();
  if (!ours || (stat.mode & S_IWGRP_IWOTH) !== 0) {
    const hint = `chown ${process.getuid!()} ${file}; chmod go-w ${file}`;
    throw refuse(file, 'can be written by others', hint);
  }
  // Not by the size that stat says: it may grow meanwhile.
  const buffer = Buffer.alloc(LIMITS.policyBytesMax + 1);
  let length = 0;
  for (;;) {
    const got = fs.readSync(fd, buffer, length, buffer.length - length, length);
    if (got === 0) return buffer.subarray(0, length);
    length += got;
    if (length > LIMITS.policyBytesMax) {
      const hint = 'give to groups instead of single users';
      throw refuse(file, `has more than ${LIMITS.policyBytesMax / 1024} KiB`, hint);
    }
  }
}

function decode(file: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw refuse(file, 'is not UTF-8', 'save it as UTF-8 text');
  }
}

/** Read and check `file`, for the command line: with all problems. Throws as `readPolicyFile`. */
export const checkPolicyFile = (file: string, environment: PolicyEnvironment): Parsed =>
  parsePolicy(readPolicyFile(file), environment);

/** The policy in `file`, and its warnings. ARK_POLICY names what is wrong with it; ARK_NOT_FOUND. */
export function loadPolicy(
  file: string,
  environment: PolicyEnvironment,
): { policy: Policy; warnings: readonly Problem[] } {
  const { policy, problems } = checkPolicyFile(file, environment);
  if (policy === null) throw policyError(file, problems);
  return { policy, warnings: problems };
}
