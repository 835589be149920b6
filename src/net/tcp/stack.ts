/** What the connections of one interface share. */
import type { NetCounters } from '../counters.ts';
import type { IpOutput } from '../ip-output.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { AckScratch } from './ack.ts';
import { TCP_PAYLOAD_OFFSET } from './api.ts';
import { ResetLimit, sendResetTo } from './bare.ts';
import { FlowTable, NO_FLOW } from './flow-table.ts';
import { KeyedHash, PURPOSE } from './keyed-hash.ts';
import { HeldFrames } from './receive-queue.ts';
import type { RecoveryShared } from './recovery-types.ts';
import { RTO_LIMITS } from './rtt.ts';
import { SackReader } from './sack.ts';
import { Segment } from './segment.ts';
import { SegmentStore } from './segment-store.ts';
import type { Tcb } from './tcb.ts';
import { TimeWaits } from './time-wait.ts';
import { TimerWheel } from './timer-wheel.ts';

/** Ticks of the initial sequence number in a millisecond: one in four microseconds (RFC 6528, section 3). */
const ISN_TICKS_PER_MS = 250;
const US_PER_MS = 1000;

export class TcpStack {
  readonly link: Link;
  readonly out: IpOutput;
  readonly counters: NetCounters;
  readonly keyed: KeyedHash;
  readonly table: FlowTable;
  readonly wheel = new TimerWheel();
  /** By the id of the flow; null when it is in TIME-WAIT. */
  readonly tcbs: (Tcb | null)[] = [];
  readonly timeWaits: TimeWaits;
  readonly held: HeldFrames;
  readonly recovery: RecoveryShared;
  /** Scratch: the segment in hand, and what it says to the sender's half. */
  readonly segment = new Segment();
  readonly ack = new AckScratch();
  /** Frames that those who send leave in the pool. */
  readonly reserve: number;
  /** False when the host's kernel has our address too, and answers for what is not ours. */
  readonly ownsAddress: boolean;
  /** The interface is closed: nothing is sent any more. */
  isClosed = false;
  /** Connections with something to send at the end of this turn. */
  readonly #dirty: Tcb[] = [];
  readonly #resets = new ResetLimit();

  constructor(link: Link, out: IpOutput, secret: Int32Array, ownsAddress: boolean) {
    this.link = link;
    this.out = out;
    this.counters = link.counters;
    this.ownsAddress = ownsAddress;
    this.keyed = new KeyedHash(secret);
    this.table = new FlowTable(this.keyed, NET_LIMITS.tcpFlowsMax);
    this.timeWaits = new TimeWaits(this);
    const { frameCount } = link.queue.memory;
    const store = new SegmentStore();
    const heldMax = frameCount >>> NET_LIMITS.tcpHeldShareLog2;
    this.held = new HeldFrames(link.queue, store, heldMax, NET_LIMITS.tcpPiecesMax);
    this.reserve = Math.max(4, frameCount >>> NET_LIMITS.tcpReserveShareLog2);
    this.recovery = {
      frames: link.queue,
      store,
      sacks: new SackReader(),
      limits: RTO_LIMITS,
      counters: link.counters,
      payloadOffset: TCP_PAYLOAD_OFFSET,
      timestampTickUs: US_PER_MS,
    };
  }

  /** Time of this turn as wrapping int32. */
  get nowMs(): number {
    return this.link.nowMs | 0;
  }
  get nowUs(): number {
    return this.link.nowUs;
  }

  /** A new flow; when all are in use, one in TIME-WAIT makes room. NO_FLOW, and counted, when there is none. */
  insertFlow(words: Int32Array, flow: number, ports: number): number {
    const { table } = this;
    if (table.count >= NET_LIMITS.tcpFlowsMax) this.timeWaits.evict();
    const id = table.insert(words, flow, ports);
    if (id === NO_FLOW) this.counters.tcpFlowsFull++;
    else this.wheel.grow(table.size);
    return id;
  }

  /** Initial sequence number of a flow (RFC 6528): a clock, and a hash of both ends. */
  isn(words: Int32Array, flow: number, ports: number): number {
    const clock = Math.imul(this.nowMs, ISN_TICKS_PER_MS);
    return (clock + this.keyed.hash(words, flow, 8, ports, 0, PURPOSE.isn)) | 0;
  }

  /** What is added to the time in the timestamps of a flow: it says nothing of how long we run (RFC 7323, section 7.1). */
  timestampOffset(words: Int32Array, flow: number, ports: number): number {
    return this.keyed.hash(words, flow, 8, ports, 0, PURPOSE.timestamp);
  }

  /** RST to a segment that fits nowhere, so many in a second. */
  reset(segment: Segment): void {
    sendResetTo(this, segment, this.#resets);
  }

  /** `tcb` is asked at the end of this turn what it has to send. */
  wantOutput(tcb: Tcb): void {
    if (tcb.isDirty) return;
    tcb.isDirty = true;
    this.#dirty.push(tcb);
  }

  get hasOutput(): boolean {
    return this.#dirty.length > 0;
  }

  /** The connections of `wantOutput`, once each; those that ask again meanwhile are for the next time. How many. */
  takeOutput(visit: (tcb: Tcb) => void): number {
    const dirty = this.#dirty;
    const count = dirty.length;
    for (let i = 0; i < count; i++) {
      const tcb = dirty[i]!;
      tcb.isDirty = false;
      visit(tcb);
    }
    const left = dirty.length - count;
    for (let i = 0; i < left; i++) dirty[i] = dirty[count + i]!;
    dirty.length = left;
    return count;
  }
}
