/**
 * The programs in docs/*.md. A block fenced as `ts run` is a program; `ts continue` is more of the one before it, so that
 * text may stand between. `ts run prepared` runs as `arrakis run` would start it, with nothing but what it is given, and
 * may connect to ARRAKIS_SOCKET beside that, as the daemon's own user.
 *
 * A comment `// → text` is the next line that the program prints: all of them, in this order, and no others. A program
 * without any has only to end well.
 */
import fs from 'node:fs';
import path from 'node:path';

export interface Program {
  /** docs/file.md:line of its first block. */
  readonly where: string;
  readonly text: string;
  readonly prepared: boolean;
  /** Lines that it prints. */
  readonly output: readonly string[];
}

const FENCE = /^```(.*)\n([\s\S]*?)^```$/gm;
const OUTPUT = /\/\/ → (.*)$/gm;

/** The programs of one document. Throws when a fence says something that is not known. */
export function programsOf(file: string, document: string): Program[] {
  const programs: { where: string; text: string; prepared: boolean }[] = [];
  for (const match of document.matchAll(FENCE)) {
    const [, info = '', body = ''] = match;
    const [language, verb, ...options] = info.split(' ');
    if (language !== 'ts' || verb === undefined) continue;
    const line = document.slice(0, match.index).split('\n').length;
    const where = `${file}:${line}`;
    const last = programs.at(-1);
    const wrong = options.find((option) => option !== 'prepared');
    if (wrong !== undefined) throw new Error(`${where}: unknown option "${wrong}"`);
    if (verb === 'run') {
      programs.push({ where, text: body, prepared: options.includes('prepared') });
    } else if (verb === 'continue' && last !== undefined) last.text += body;
    else throw new Error(`${where}: a block is "ts run", or "ts continue" after one`);
  }
  return programs.map((program) => ({
    ...program,
    output: [...program.text.matchAll(OUTPUT)].map(([, text]) => text!.trimEnd()),
  }));
}

/** Every program of every document in `folder`. */
export function allPrograms(folder: string): Program[] {
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith('.md'))
    .sort()
    .flatMap((name) =>
      programsOf(`docs/${name}`, fs.readFileSync(path.join(folder, name), 'utf8')),
    );
}
