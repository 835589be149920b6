/** The version of this package, from its package.json above the compiled tree. */
import fs from 'node:fs';

const file = new URL('../../../package.json', import.meta.url);

export const VERSION: string = (JSON.parse(fs.readFileSync(file, 'utf8')) as { version: string })
  .version;
