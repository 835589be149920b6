/** Numbers of the command line. */
import { ArrakisError } from '../base/errors.ts';

/** A positive whole number from the command line. */
export function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) {
    throw new ArrakisError('ARK_USAGE', `"${text}" is not a positive whole number`);
  }
  return Number(text);
}
