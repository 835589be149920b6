/** Where a control plane notes what is to outlive it, in memory; and the next one's view of that. */
import type { JournalId } from '../../src/control/journal.ts';
import type { Claimed, Keeping } from '../../src/control/keeping.ts';

interface Note {
  readonly kind: string;
  readonly id: JournalId;
  readonly state: string;
  readonly fds: readonly number[];
}

export class Kept implements Keeping {
  readonly notes = new Map<string, Note>();
  /** What was written, in bytes of JSON, and in records. */
  bytes = 0;
  records = 0;

  put(kind: string, id: JournalId, state: unknown, fds: readonly number[] = []): void {
    const text = JSON.stringify(state);
    this.bytes += text.length;
    this.records++;
    this.notes.set(`${kind} ${id}`, { kind, id, state: text, fds });
  }

  delete(kind: string, id: JournalId): void {
    if (this.notes.delete(`${kind} ${id}`)) this.records++;
  }

  /** Of these kinds, as text, to compare. */
  texts(...kinds: string[]): string[] {
    const found = [...this.notes].filter(([, { kind }]) => kinds.includes(kind));
    return found.map(([key, { state }]) => `${key} ${state}`).sort();
  }

  unclaimed(kind: string): JournalId[] {
    return [...this.notes.values()].filter((note) => note.kind === kind).map(({ id }) => id);
  }

  peek(kind: string, id: JournalId): unknown {
    const note = this.notes.get(`${kind} ${id}`);
    return note === undefined ? undefined : JSON.parse(note.state);
  }

  /** The note stays, as in the journal. */
  claim(kind: string, id: JournalId): Claimed | null {
    const note = this.notes.get(`${kind} ${id}`);
    return note === undefined ? null : { state: JSON.parse(note.state), fds: note.fds };
  }
}
