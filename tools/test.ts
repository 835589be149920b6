/**
 * `npm test [-- PATTERN...]`: packages, Biome, all tests; one line at the end. PATTERN is part of a test file's
 * path; with one, only files that match run, and Biome does not.
 *
 * - Unit tests (src, apps, tools, ...) run side by side; what is under test/ takes whole cores and runs one by one.
 * - A compiled test whose source is gone does not run.
 * - A file that takes longer than its bound is ended and fails.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';
import { mustStage, runStaged } from '../src/cli/stage.ts';
import { ensurePackages } from './packages.ts';

const UNIT_TIMEOUT_MS = 180_000;
const SYSTEM_TIMEOUT_MS = 600_000;

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

/** What is compiled, `dist`, and above it the sources. */
const built = path.resolve(fileURLToPath(new URL('..', import.meta.url)));
const root = path.dirname(built);

function testFiles(patterns: readonly string[]): string[] {
  const names = fs.readdirSync(built, { recursive: true, encoding: 'utf8' });
  return names
    .filter((name) => name.endsWith('.test.js'))
    .filter((name) => fs.existsSync(path.join(root, name.replace(/\.js$/, '.ts'))))
    .filter((name) => patterns.length === 0 || patterns.some((part) => name.includes(part)))
    .sort();
}

/** Run `files` (relative to the build) and add up what became of their tests. A skipped suite counts as one. */
async function runFiles(
  files: readonly string[],
  concurrency: number,
  timeoutMs: number,
  totals: Totals,
): Promise<void> {
  if (files.length === 0) return;
  const stream = run({
    files: files.map((file) => path.join(built, file)),
    concurrency,
    timeout: timeoutMs,
  });
  stream.on('test:pass', (event) => {
    // Only a file without tests is reported by its own name.
    if (files.some((file) => event.name === path.join(built, file))) {
      console.log(`${event.name}: no tests in it`);
      totals.failed++;
    } else if (event.skip !== undefined || event.todo !== undefined) totals.skipped++;
    else if (event.details.type !== 'suite') totals.passed++;
  });
  stream.on('test:fail', (event) => {
    // A suite fails with its tests, which are counted; or for itself, as when a hook throws.
    const failureType = (event.details.error as { failureType?: string }).failureType;
    if (event.details.type !== 'suite' || failureType !== 'subtestsFailed') totals.failed++;
  });
  for await (const text of stream.compose(new spec())) process.stdout.write(text);
}

/** Configuration and documents beside the folders; some tests read them. */
const rootFiles = (): string[] =>
  fs
    .readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name);

/** Whether Biome is content. It says itself what it is not content with. */
function biome(): boolean {
  const program = path.join(root, 'node_modules', '.bin', 'biome');
  const { status } = spawnSync(program, ['check', '.'], { cwd: root, stdio: 'inherit' });
  return status === 0;
}

async function main(patterns: readonly string[]): Promise<number> {
  ensurePackages((line) => console.log(line));
  if (mustStage()) {
    console.log('nobody cannot read this checkout: the tests run in a copy');
    const rest = [
      'src',
      'apps',
      'examples',
      'test',
      'tools',
      'docs',
      'node_modules',
      ...rootFiles(),
    ];
    return runStaged(path.join('dist', 'tools', 'test.js'), patterns, rest);
  }
  const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  if (patterns.length === 0 && !biome()) totals.failed++;
  const files = testFiles(patterns);
  if (files.length === 0) {
    console.error(`no test file matches ${patterns.join(' ')}`);
    return 1;
  }
  const isSystem = (file: string): boolean => file.startsWith(`test${path.sep}`);
  const units = files.filter((file) => !isSystem(file));
  await runFiles(units, os.availableParallelism(), UNIT_TIMEOUT_MS, totals);
  await runFiles(files.filter(isSystem), 1, SYSTEM_TIMEOUT_MS, totals);
  const { passed, failed, skipped } = totals;
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
