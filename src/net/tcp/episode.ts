/**
 * What a connection has to remember of a loss: the reduction under way, and how to undo it. Most connections have none;
 * those that are over are kept for the next, so that losses make no garbage.
 */
import { Prr } from './prr.ts';
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

  static give(episode: Episode): void {
    episode.undo.isActive = false;
    if (kept.length < KEPT_MAX) kept.push(episode);
  }
}
