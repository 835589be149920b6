/**
 * Every object of the control plane by id. Ids count up and are never used twice, not even by the daemon that comes
 * after this one, so a stale id names nothing.
 * The table knows no kind: each kind's file says what it is and what may be done with it.
 */
import { assert } from '../../base/assert.ts';
import type { Keeping } from '../keeping.ts';
import { LIMITS } from '../limits.ts';
import type { ObjectInfo } from '../protocol.ts';

export type ObjectKind = ObjectInfo['kind'];

export interface ControlObject {
  readonly kind: ObjectKind;
  readonly id: number;
  /** Id of the domain that has it. */
  readonly owner: number;
  readonly createdMs: number;
  readonly name: string;
  /** What `list` shows of it beyond the common fields. */
  detail(): ObjectInfo['detail'];
}

export class ObjectTable {
  readonly #objects = new Map<number, ControlObject>();
  readonly #clock: () => number;
  readonly #keeping: Keeping;
  #nextId: number;
  /** Ids below are noted as used. */
  #reserved: number;

  /** `clock` gives Unix time in ms. Ids start at `firstId`. */
  constructor(clock: () => number, keeping: Keeping, firstId = 1) {
    this.#clock = clock;
    this.#keeping = keeping;
    this.#nextId = firstId;
    this.#reserved = firstId;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** The id and creation time of the next object. */
  birth(): { id: number; createdMs: number } {
    if (this.#nextId >= this.#reserved) {
      this.#reserved += LIMITS.idsReserved;
      this.#keeping.put('ids', 'objects', { next: this.#reserved });
    }
    return { id: this.#nextId++, createdMs: this.#clock() };
  }

  add<T extends ControlObject>(object: T): T {
    assert(!this.#objects.has(object.id), 'object ids are unique');
    this.#objects.set(object.id, object);
    return object;
  }

  /** Idempotent: reclaiming may meet what an operation has already undone. */
  remove(id: number): void {
    this.#objects.delete(id);
  }

  get(id: number): ControlObject | undefined {
    return this.#objects.get(id);
  }

  /** Bring objects that were restored under ids of their own into order. */
  sort(): void {
    const sorted = [...this.#objects.values()].sort((a, b) => a.id - b.id);
    this.#objects.clear();
    for (const object of sorted) this.#objects.set(object.id, object);
  }

  /** By ascending id. */
  all(): IterableIterator<ControlObject> {
    return this.#objects.values();
  }
}

export function describeObject(object: ControlObject): ObjectInfo {
  const { kind, id, owner, createdMs, name } = object;
  return { kind, id, owner, createdMs, name, detail: object.detail() };
}
