/**
 * The text of a policy file as a tree of strings, lists and tables, and where each part of it stands.
 *
 * YAML 1.2, of which only what people write by hand is taken: no anchors and aliases (they could make a small file a
 * large policy), no tags, no directives, one document. Every scalar is a string, so `no`, `0o17` and `1:30` are what
 * they look like; who knows what is expected reads it.
 */
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  Parser,
  type YAMLMap,
} from 'yaml';
import { LIMITS } from '../limits.ts';
import { type Position, type Problem, problemAt } from './problem.ts';

export type Tree = string | Tree[] | { [key: string]: Tree };
export type Path = readonly PropertyKey[];

const START: Position = { line: 1, column: 1 };

/** Where the parts of a tree stand. A part that is not there stands where the nearest one around it does. */
export class Places {
  readonly #values = new Map<string, Position>();
  readonly #keys = new Map<string, Position>();

  setValue(path: Path, at: Position): void {
    this.#values.set(name(path), at);
  }

  setKey(path: Path, at: Position): void {
    this.#keys.set(name(path), at);
  }

  /** Of what stands at `path`. */
  value(path: Path): Position {
    for (let length = path.length; length > 0; length--) {
      const at = this.#values.get(name(path.slice(0, length)));
      if (at !== undefined) return at;
    }
    return START;
  }

  /** Of the key that is the last part of `path`; of the value where it has none. */
  key(path: Path): Position {
    return this.#keys.get(name(path)) ?? this.value(path);
  }
}

const name = (path: Path): string => JSON.stringify(path.map(String));

export interface Source {
  /** Null when the text cannot be read; `{}` for one with nothing in it. */
  readonly tree: Tree | null;
  readonly places: Places;
  readonly problems: readonly Problem[];
}

/** Read `text`. Throws nothing: what is wrong stands in `problems`. A tree beside them is what could be understood. */
export function readSource(text: string): Source {
  const reader = new Reader();
  const tree = reader.read(text);
  return { tree, places: reader.places, problems: reader.problems };
}

class Reader {
  readonly places = new Places();
  readonly problems: Problem[] = [];
  readonly #lines = new LineCounter();

  read(text: string): Tree | null {
    const nul = text.indexOf('\0');
    if (nul >= 0) {
      const before = text.slice(0, nul).split('\n');
      const at = { line: before.length, column: before.at(-1)!.length + 1 };
      this.problems.push(problemAt(at, 'a NUL byte', 'this is no text file; write it anew'));
      return null;
    }
    this.#lines.addNewLine(0);
    const documents = this.#documents(text);
    if (documents === null) return null;
    for (const second of documents.slice(1, 2)) {
      this.#report(
        second.range[0],
        'a second document',
        'a policy is one document: remove the ---',
      );
    }
    const [document] = documents;
    if (document === undefined || document.contents === null) return {};
    const tree = this.#tree(document.contents, []);
    return tree === '' ? {} : tree;
  }

  /**
   * The parser does not recurse, but what makes documents of its tokens does, and on its way asks for more stack than
   * an exception could give back: too deep a file has to be refused before.
   */
  #documents(text: string): Document.Parsed[] | null {
    const parser = new Parser(this.#lines.addNewLine);
    const tokens = [];
    for (const lexeme of new Lexer().lex(text)) {
      for (const token of parser.next(lexeme)) tokens.push(token);
      if (parser.stack.length <= LIMITS.policyDepthMax) continue;
      const hint = 'a policy has tables in tables, four deep';
      this.#report(parser.offset, 'this is nested too deeply', hint);
      return null;
    }
    for (const token of parser.end()) tokens.push(token);
    for (const token of tokens) {
      if (token.type === 'directive') this.#report(token.offset, 'a directive', 'remove the line');
    }
    const options = { schema: 'failsafe', uniqueKeys: false, prettyErrors: false } as const;
    const documents = [...new Composer({ ...options, logLevel: 'silent' }).compose(tokens)];
    const errors = documents.flatMap((document) => document.errors);
    for (const { pos, message } of errors) {
      this.#report(pos[0], `not YAML: ${message}`, 'docs/policy.md has examples');
    }
    if (errors.length > 0) return null;
    return documents as Document.Parsed[];
  }

  #report(offset: number, message: string, hint: string): void {
    this.problems.push(problemAt(this.#at(offset), message, hint));
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line, column: col };
  }

  #tree(node: unknown, path: Path): Tree {
    const { range, anchor, tag } = node as { range?: [number]; anchor?: string; tag?: string };
    const offset = range?.[0] ?? 0;
    this.places.setValue(path, this.#at(offset));
    if (isAlias(node))
      this.#report(offset, `alias *${node.source}`, 'write out what it stands for');
    if (anchor !== undefined) this.#report(offset, `anchor &${anchor}`, 'remove it');
    if (tag !== undefined)
      this.#report(offset, `tag ${tag}`, 'remove it: everything is plain text');
    if (isMap(node)) return this.#table(node, path);
    if (isSeq(node)) return node.items.map((item, i) => this.#tree(item, [...path, i]));
    return isScalar(node) ? String(node.value ?? '') : '';
  }

  #table(map: YAMLMap, path: Path): Tree {
    const table: { [key: string]: Tree } = {};
    for (const { key, value } of map.items) {
      const offset = (key as { range?: [number] } | null)?.range?.[0] ?? 0;
      if (!isScalar(key)) {
        this.#report(offset, 'a key that is a list or a table', 'a key is a word');
        continue;
      }
      const word = String(key.value ?? '');
      const below = [...path, word];
      if (word === '__proto__') {
        this.#report(offset, '"__proto__" is no name', 'choose another');
      } else if (Object.hasOwn(table, word)) {
        const { line } = this.places.key(below);
        this.#report(
          offset,
          `"${word}" stands here twice`,
          `it is in line ${line} already: join them`,
        );
      } else {
        this.places.setKey(below, this.#at(offset));
        if (key.anchor !== undefined || key.tag !== undefined) this.#tree(key, below);
        table[word] = value === null ? '' : this.#tree(value, below);
        if (value === null) this.places.setValue(below, this.#at(offset));
      }
    }
    return table;
  }
}
