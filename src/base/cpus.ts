/** Lists of processors, as people write them. */
import { ArrakisError } from './errors.ts';

/** CPU numbers as in `ARRAKIS_CPUS`: `0`, `0,2`, `0-3`. Throws ARK_BAD_ARGUMENT. */
export function parseCpus(text: string): number[] {
  const cpus: number[] = [];
  for (const part of text.split(',')) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = match?.[2] === undefined ? first : Number(match[2]);
    if (match === null || last < first || last >= 1024) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" is not a list of CPUs`, {
        hint: 'write it as "0", "0,2" or "0-3"',
      });
    }
    for (let cpu = first; cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}
