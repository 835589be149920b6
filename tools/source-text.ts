/**
 * TypeScript read without a compiler: enough to look for names in code but not in comments or strings, and
 * to measure functions. It relies on the formatter's layout, which Biome guarantees.
 */

type Blank = 'comments' | 'comments and strings';

/** Text after which a slash starts a regular expression, not a division. */
const BEFORE_REGEX = /(^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|throw))\s*$/;

/** End (exclusive) of the quoted string that starts at `at`. */
function endOfQuoted(text: string, at: number): number {
  const quote = text[at];
  let end = at + 1;
  while (end < text.length && text[end] !== quote && text[end] !== '\n') {
    end += text[end] === '\\' ? 2 : 1;
  }
  return end + 1;
}

/** End (exclusive) of the regular expression that starts at `at`, without its flags. */
function endOfRegex(text: string, at: number): number {
  let inClass = false;
  let end = at + 1;
  for (; end < text.length && text[end] !== '\n'; end++) {
    if (text[end] === '\\') end++;
    else if (text[end] === '[') inClass = true;
    else if (text[end] === ']') inClass = false;
    else if (text[end] === '/' && !inClass) return end + 1;
  }
  return end;
}

/** End (exclusive) of the literal part of a template from `at`: behind its "`" or its "${". */
function endOfTemplatePart(text: string, at: number): number {
  let end = at;
  for (; end < text.length; end++) {
    if (text[end] === '\\') end++;
    else if (text[end] === '`') return end + 1;
    else if (text[end] === '$' && text[end + 1] === '{') return end + 2;
  }
  return end;
}

/** `text` with comments, and on request what is inside strings, replaced by spaces: lines and columns stay. */
export function blank(text: string, what: Blank): string {
  const out: string[] = [];
  const spaces = (from: number, to: number): string => text.slice(from, to).replace(/[^\n]/g, ' ');
  const literal = (from: number, to: number): void => {
    if (what === 'comments' || to - from < 2) out.push(text.slice(from, to));
    else out.push(text[from]!, spaces(from + 1, to - 1), text.slice(to - 1, to));
  };
  // Depth of braces inside each "${" that is open; a "}" at depth 0 goes back into its template.
  const templates: number[] = [];
  let at = 0;
  while (at < text.length) {
    const start = at;
    const two = text.slice(at, at + 2);
    const char = text[at]!;
    const backInTemplate = char === '}' && templates.at(-1) === 0;
    if (two === '//' || two === '/*') {
      const end = text.indexOf(two === '//' ? '\n' : '*/', at + 2);
      at = end < 0 ? text.length : two === '//' ? end : end + 2;
      out.push(spaces(start, at));
    } else if (char === "'" || char === '"') {
      at = endOfQuoted(text, at);
      literal(start, at);
    } else if (char === '`' || backInTemplate) {
      if (backInTemplate) templates.pop();
      at = endOfTemplatePart(text, at + 1);
      if (text[at - 1] === '{') templates.push(0);
      literal(start, at);
    } else if (char === '/' && BEFORE_REGEX.test(text.slice(Math.max(0, at - 40), at))) {
      at = endOfRegex(text, at);
      literal(start, at);
    } else {
      if (templates.length > 0 && char === '{') templates[templates.length - 1]!++;
      if (templates.length > 0 && char === '}') templates[templates.length - 1]!--;
      at++;
      out.push(char);
    }
  }
  return out.join('');
}

export interface Import {
  /** As written, './fd.ts'. */
  specifier: string;
  /** Of the statement's last line, from 1. */
  line: number;
}

const IMPORTS = [
  /\bfrom\s*['"]([^'"]+)['"]/g,
  /\bimport\s*['"]([^'"]+)['"]/g,
  /\bimport\(\s*['"]([^'"]+)['"]/g,
];
/** Compiled modules that are started by name, as workers and child processes are. */
const STARTED = /\bnew URL\(\s*['"](\.{1,2}\/[^'"]+)\.js['"]/g;

/** What a module imports or re-exports; with `started`, also modules it names to be started. */
export function importsOf(text: string, started = false): Import[] {
  const code = blank(text, 'comments');
  // In a string such as a test's source, an import is text.
  const bare = blank(text, 'comments and strings');
  const found: Import[] = [];
  for (const pattern of started ? [...IMPORTS, STARTED] : IMPORTS) {
    for (const match of code.matchAll(pattern)) {
      const keyword = match[0].search(/\b(from|import|new)\b/);
      if (bare[match.index + keyword] === ' ') continue;
      const specifier = pattern === STARTED ? `${match[1]}.ts` : match[1]!;
      found.push({ specifier, line: lineAt(code, match.index + match[0].length) });
    }
  }
  return found;
}

/** Line number, from 1, of offset `at`. */
export function lineAt(text: string, at: number): number {
  let line = 1;
  for (let i = text.indexOf('\n'); i >= 0 && i < at; i = text.indexOf('\n', i + 1)) line++;
  return line;
}

export interface FunctionSpan {
  name: string;
  /** First line, from 1. */
  line: number;
  lines: number;
}

const MODIFIERS = '(?:export |default |async |static |override |get |set |readonly )*';
const FUNCTION = new RegExp(`^\\s*${MODIFIERS}function\\*? ?(\\w*)`);
const ARROW = new RegExp(
  `^\\s*${MODIFIERS}(?:const |let )?([#\\w]+)(?:: .*)? = (?:async )?(?:\\(|\\w+ =>|<)`,
);
const METHOD = new RegExp(`^\\s+${MODIFIERS}\\*?([#\\w]+)(?:<.*>)?\\(`);
const NOT_METHODS = /^\s*(?:if|for|while|switch|catch|return|await|throw|super|new|else|do)\b/;

/** Functions and methods that have a name, with their length. Inner ones are counted in the outer, and by themselves. */
export function functionsOf(text: string): FunctionSpan[] {
  const lines = blank(text, 'comments and strings').split('\n');
  const spans: FunctionSpan[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    if (NOT_METHODS.test(line)) continue;
    const match = FUNCTION.exec(line) ?? ARROW.exec(line) ?? METHOD.exec(line);
    if (match === null) continue;
    const end = endOfBlock(lines, at);
    if (end < 0) continue;
    spans.push({ name: match[1] || 'default', line: at + 1, lines: end - at + 1 });
  }
  return spans;
}

const indentOf = (line: string): number => line.search(/\S/);

/** Index of the line `}` that ends the function starting at line `at`; -1 when it is a call or has no block. */
function endOfBlock(lines: readonly string[], at: number): number {
  const indent = indentOf(lines[at]!);
  for (let next = at + 1; next < lines.length; next++) {
    const line = lines[next]!;
    if (line.trim() === '' || indentOf(line) > indent) continue;
    if (indentOf(line) < indent) return -1;
    const rest = line.trim();
    // The end of a template whose text began at the margin.
    if (rest.startsWith('`')) continue;
    if (/^\};?$/.test(rest)) return next;
    // The parameters, or the type of the result, were broken over several lines.
    const headerGoesOn = /^[)}>\]].*[{(:|]$/.test(rest) || /^\).*=>$/.test(rest);
    if (!headerGoesOn) return -1;
  }
  return -1;
}
