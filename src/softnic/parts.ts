/**
 * The classes that handle packets. There is one set of them, and nothing that a process is told chooses another:
 * `bench/protection` has programs of its own that put others in their place, to measure what each costs.
 */

import type { Arena } from '../ffi/arena.ts';
import { SplitDevice } from '../ring/split-device.ts';
import { FilterSet } from './match.ts';
import type { FrameWindow, Staging } from './offload.ts';
import { QueuePair } from './pair.ts';
import { Switch } from './switch.ts';

export interface NicParts {
  readonly Ring: typeof SplitDevice;
  readonly Pair: typeof QueuePair;
  readonly Filters: typeof FilterSet;
  readonly Switch: typeof Switch;
  /** The memory that the switch reads frames in. */
  window(arena: Arena, staging: Staging): FrameWindow;
}

export const NIC_PARTS: NicParts = {
  Ring: SplitDevice,
  Pair: QueuePair,
  Filters: FilterSet,
  Switch,
  window: (_arena, staging) => staging,
};
