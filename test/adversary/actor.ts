/**
 * The far side of `Actor` (process.ts): a process that does what it is told. One line of JSON in for each act, one out
 * with what came of it. Acts may overlap; the process ends with its standard input.
 */
import readline from 'node:readline';

export type Act = (args: never) => unknown;

/** What went wrong, as it travels: a code of ours, an errno, or the text. */
export const codeOf = (error: unknown): string => {
  const { code, errno, message } = error as { code?: unknown; errno?: unknown; message?: string };
  if (code === 'ARK_SYSCALL' && typeof errno === 'string') return errno;
  return typeof code === 'string' ? code : (message ?? String(error));
};

/** Serve acts by name until nobody asks any more. */
export function serveActs(acts: Readonly<Record<string, Act>>): void {
  const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
  const perform = async (id: number, name: string, args: unknown): Promise<void> => {
    try {
      say({ id, value: (await acts[name]!(args as never)) ?? null });
    } catch (error) {
      say({ id, code: codeOf(error), text: (error as Error).stack ?? String(error) });
    }
  };
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const { id, act, args } = JSON.parse(line) as { id: number; act: string; args: unknown };
    void perform(id, act, args);
  });
  lines.on('close', () => process.exit(0));
  say({ id: 0, value: null });
}
