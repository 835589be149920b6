/**
 * What is to come back of direct VNICs that are no more (repossess.ts), noted before the VNIC is struck out: a daemon
 * that is killed meanwhile has a next one that goes on with it, with its grace anew.
 */
import type { Keeping, Safekeeping } from './keeping.ts';
import type { Log } from './log.ts';
import { type Belongings, repossess } from './repossess.ts';

const KIND = 'repossession';

/** In the journal. */
interface SavedRepossession {
  readonly belongings: Belongings;
  readonly holder: number;
}

interface Pending {
  readonly belongings: Belongings;
  isOver: boolean;
}

/** A socket of a VNIC is in no other's belongings. */
const idOf = ({ sockets }: Belongings): string => String(sockets[0]!);

export class Repossessions {
  readonly #keeping: Keeping;
  readonly #log: Log;
  readonly #pending = new Map<string, Pending>();

  constructor(keeping: Keeping, log: Log) {
    this.#keeping = keeping;
    this.#log = log;
  }

  /** Whether these are on their way back already: their VNIC is not to be gone on with. */
  has(belongings: Belongings): boolean {
    return this.#pending.has(idOf(belongings));
  }

  /**
   * Note that `belongings` are to come back from process `holder` (0: nobody knows) and whoever else has them. The
   * function takes them; call it when the device has let go. It resolves when nobody can send on them.
   */
  note(belongings: Belongings, holder: number): () => Promise<void> {
    const id = idOf(belongings);
    const pending = { belongings, isOver: false };
    this.#pending.set(id, pending);
    const saved: SavedRepossession = { belongings, holder };
    this.#keeping.put(KIND, id, saved);
    return async () => {
      const options = { log: this.#log, holder, isOver: () => pending.isOver };
      const { back } = await repossess(belongings, options);
      const ended = back.then(() => {
        this.#pending.delete(id);
        this.#keeping.delete(KIND, id);
      });
      ended.catch((error: Error) => this.#failed(error));
    };
  }

  /** `note`, and take them: nobody waits for it. */
  begin(belongings: Belongings, holder: number): void {
    if (this.has(belongings)) return;
    this.#log('warn', 'a direct VNIC was not taken over: its sockets are to come back', {
      ...belongings,
      holder,
    });
    this.note(belongings, holder)().catch((error: Error) => this.#failed(error));
  }

  /** Go on with what the daemon before had not done. */
  resume(keeping: Safekeeping): void {
    for (const id of keeping.unclaimed(KIND)) {
      const { belongings, holder } = keeping.claim(KIND, id)!.state as SavedRepossession;
      this.begin(belongings, holder);
    }
  }

  /** A new socket has the queue of these: what was to come back of it is no more. */
  regained({ ifIndex, queues }: Belongings): void {
    for (const pending of this.#pending.values()) {
      const { belongings } = pending;
      if (belongings.ifIndex !== ifIndex) continue;
      pending.isOver ||= belongings.queues.every((queue) => queues.includes(queue));
    }
  }

  #failed({ message }: Error): void {
    this.#log('error', 'repossession failed', { error: message });
  }
}
