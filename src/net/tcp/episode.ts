/**
 * What a connection has to remember of a loss: the reduction under way, and how to undo it. Most connections have none;
 * those that are over are kept for the next, so that losses make no garbage.
 */
import { Prr } from './prr.ts';
import type { SendQueue } from './send-queue.ts';
import { UndoState } from './undo.ts';

/** Kept for the next; more are left to the collector. */
const KEPT_MAX = 256;
const kept: Episode[] = [];

export class Episode {
  readonly prr = new Prr();
  readonly undo = new UndoState();

  static take(): Episode {
    return kept.pop() ?? new Episode();
  }

  /** Returns null, for the field that had it. */
  static give(episode: Episode | null): null {
    if (episode !== null && kept.length < KEPT_MAX) kept.push(episode);
    return null;
  }

  /** A reduction begins, for what is out now. */
  start(queue: SendQueue): void {
    this.prr.start(queue.outstanding);
    this.undo.start(queue.una, queue.nxt);
  }
}
