/** Plain-text tables and JSON for the command line. Every command that prints data offers both. */

export type Cell = string | number;

/**
 * `rows` under `heading`, columns padded to their widest cell; numbers to the right, text to the left.
 * A last column of text is not padded, so no line ends in spaces.
 */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly Cell[])[],
): string {
  const lines = [heading, ...rows].map((row) => row.map((cell) => String(cell)));
  const widths = heading.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  const isNumber = heading.map((_, column) =>
    rows.every(
      (row) => typeof row[column] === 'number' || /^[-\d., ]*%?$/.test(String(row[column])),
    ),
  );
  return lines
    .map((line) =>
      line
        .map((cell, i) => (isNumber[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** 1234567 as `1,234,567`; fractions are kept to `digits`. */
export function formatNumber(value: number, digits = 0): string {
  return value.toLocaleString('en-US', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function printLine(text = ''): void {
  process.stdout.write(`${text}\n`);
}
