/** `arrakis doctor`: what this machine can do, what is missing, and the one command that mends it. */
import type { Command } from 'commander';
import { removeLeftovers } from '../../control/leftovers.ts';
import { runDirectory } from '../../control/paths.ts';
import { allFindings, deviceFindings, type Finding } from '../doctor/checks.ts';
import { printJson, printLine } from '../table.ts';

const MARK = { ok: 'ok  ', warn: 'WARN', fail: 'FAIL', info: '    ' } as const;

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('what this machine can do, what is missing, what was left behind')
    .option('--fix', 'remove what a killed daemon left behind')
    .option('--json', 'print the findings as JSON')
    .action(async (options: { fix?: boolean; json?: boolean }) => {
      const removed = options.fix ? removeLeftovers(runDirectory(process.getuid!())) : [];
      const findings = [...allFindings(), ...(await deviceFindings())];
      if (options.json) printJson({ removed, findings });
      else {
        for (const { kind, name } of removed) printLine(`removed: ${kind} ${name}`);
        for (const finding of findings) printLine(describe(finding));
      }
      if (findings.some((finding) => finding.status === 'fail')) process.exitCode = 1;
    });
}

function describe({ check, status, detail, fix }: Finding): string {
  const line = `${MARK[status]}  ${check.padEnd(18)} ${detail}`;
  return fix === undefined ? line : `${line}\n${' '.repeat(25)}→ ${fix}`;
}
