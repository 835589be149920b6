/** Which congestion control connections have. */
import type { CongestionControl } from './congestion.ts';
import { Cubic } from './cubic.ts';

export const newCongestionControl = (): CongestionControl => new Cubic();
