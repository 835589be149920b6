/** What is wrong with a policy file: where, what, and what to do. All of a file are found, not only the first. */
import { ArrakisError } from '../../base/errors.ts';

/** Both from 1; a column counts UTF-16 units. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface Problem extends Position {
  /** A warning does not keep the policy from being used. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
  readonly hint?: string | undefined;
}

const SHOWN_MAX = 3;

export function problemAt(
  at: Position,
  message: string,
  hint?: string,
  severity: Problem['severity'] = 'error',
): Problem {
  const { line, column } = at;
  return { line, column, severity, message, ...(hint === undefined ? {} : { hint }) };
}

export const isError = ({ severity }: Problem): boolean => severity === 'error';

/** `FILE:3:5: error: text`, as compilers write it; then the hint. */
export function formatProblem(file: string, problem: Problem): string {
  const { line, column, severity, message, hint } = problem;
  const text = `${file}:${line}:${column}: ${severity}: ${message}`;
  return hint === undefined ? text : `${text}\n  → ${hint}`;
}

/** By place in the file; at one place in the order in which they were found. */
export const inOrder = <T extends Position>(problems: readonly T[]): T[] =>
  [...problems].sort((a, b) => a.line - b.line || a.column - b.column);

/** For whoever cannot go on with the file: the first errors, how many there are, and the command that lists them all. */
export function policyError(file: string, problems: readonly Problem[]): ArrakisError {
  const errors = problems.filter(isError);
  const shown = errors.slice(0, SHOWN_MAX).map(({ line, column, message, hint }) => {
    const text = `${file}:${line}:${column}: ${message}`;
    return hint === undefined ? text : `${text} (${hint})`;
  });
  const more = errors.length > SHOWN_MAX ? `; and ${errors.length - SHOWN_MAX} more` : '';
  return new ArrakisError('ARK_POLICY', `${shown.join('; ')}${more}`, {
    hint: `arrakis policy check ${file}`,
  });
}
