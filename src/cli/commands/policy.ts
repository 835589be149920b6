/** `arrakis policy`: is a policy file right, what does somebody get by it, and have the daemon load it again. */
import fs from 'node:fs';
import type { Command } from 'commander';
import { connect } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatRange } from '../../control/caps/range.ts';
import { rightNames } from '../../control/caps/rights.ts';
import { machineEnvironment, type PolicyEnvironment } from '../../control/policy/environment.ts';
import { checkPolicyFile, defaultPolicyPath, loadPolicy } from '../../control/policy/file.ts';
import { formatPolicy } from '../../control/policy/format.ts';
import type { PolicyPeer } from '../../control/policy/policy.ts';
import { formatProblem, isError } from '../../control/policy/problem.ts';
import { formatTable, printJson, printLine } from '../table.ts';

interface ShowOptions {
  user?: string;
  program?: string;
  file: string;
  json?: boolean;
}

export function registerPolicy(program: Command): void {
  const policy = program
    .command('policy')
    .description('what users, groups and programs are given (docs/policy.md)');
  const file = defaultPolicyPath(process.getuid!());
  policy
    .command('check')
    .description(
      'say everything that is wrong with a policy file; exit code 1 when it cannot be used',
    )
    .argument('[file]', 'the policy file', file)
    .option('--json', 'print the problems as JSON')
    .action(check);
  policy
    .command('show')
    .description('the policy, or what somebody gets by it')
    .option('--user <name>', 'a user by name or uid, with its groups')
    .option('--program <path>', 'a program by its absolute path')
    .option('--file <file>', 'the policy file', file)
    .option('--json', 'print it as JSON')
    .action(show);
  policy
    .command('reload')
    .description('have the daemon load its policy file again')
    .option('--json', 'print the outcome as JSON')
    .action(reload);
}

/** soft0 exists without an interface; its network is known to the daemon alone. */
const environment = (): PolicyEnvironment => machineEnvironment({ soft0: [] });

function check(file: string, options: { json?: boolean }): void {
  const { policy, problems } = checkPolicyFile(file, environment());
  if (options.json) printJson({ file, ok: policy !== null, problems });
  else {
    for (const problem of problems) printLine(formatProblem(file, problem));
    const errors = problems.filter(isError).length;
    const counts = `${errors} errors, ${problems.length - errors} warnings`;
    printLine(policy === null ? counts : `${file}: ${policy.rules.length} rules, ${counts}`);
  }
  if (policy === null) process.exitCode = 1;
}

function show(options: ShowOptions): void {
  const { policy } = loadPolicy(options.file, environment());
  if (options.user === undefined && options.program === undefined) {
    if (options.json) printJson(policy.rules);
    else process.stdout.write(formatPolicy(policy));
    return;
  }
  const peer = peerOf(options);
  const vnics = policy.vnicsFor(peer);
  const capabilities = policy.policyFor(peer).map(({ kind, object, rights, range }) => ({
    ...{ kind, object, rights: rightNames(kind, rights), range },
  }));
  if (options.json) {
    printJson({ ...peer, vnics, capabilities });
    return;
  }
  const rows = capabilities.map(({ kind, object, rights, range }) => [
    ...[kind, object, rights.join(','), formatRange(range)],
  ]);
  if (rows.length === 0) printLine('nothing');
  else printLine(formatTable(['KIND', 'OBJECT', 'RIGHTS', 'RANGE'], rows));
  if (vnics !== null) printLine(`at most ${vnics} VNICs at once`);
}

/** A user as after a login; without one, a program of nobody in particular. */
function peerOf({ user, program }: ShowOptions): PolicyPeer {
  const exe = program ?? null;
  if (user === undefined) return { uid: -1, gid: null, groups: [], exe };
  const { users } = environment();
  const entry = users.user(user);
  if (entry !== null) {
    return { uid: entry.uid, gid: entry.gid, groups: users.groupsOf(entry), exe };
  }
  const uid = users.uid(user);
  if (uid !== null) return { uid, gid: null, groups: [], exe };
  throw new ArrakisError('ARK_USAGE', `there is no user "${user}"`, { hint: 'see /etc/passwd' });
}

async function reload(options: { json?: boolean }): Promise<void> {
  const domain = await connect({ name: 'arrakis-policy' });
  try {
    const { reply } = await domain.request('policy.reload', {});
    if (options.json) {
      printJson(reply);
      return;
    }
    for (const warning of reply.warnings) {
      printLine(formatProblem(reply.file, { ...warning, severity: 'warning' }));
    }
    if (!fs.existsSync(reply.file))
      printLine(`there is no ${reply.file}: nobody is given anything`);
    printLine(`${reply.file}: ${reply.granted} capabilities granted, ${reply.revoked} revoked`);
  } finally {
    await domain.close();
  }
}
