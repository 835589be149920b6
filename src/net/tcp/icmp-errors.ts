/**
 * What ICMP says about a segment of ours (RFC 5927). Anybody can send that: only a report that quotes a sequence number
 * which is under way is looked at, and no report ends a connection that is established. "Too big" makes segments smaller.
 */
import * as wire from '../../wire/tcp.ts';
import { FLOW_REMOTE, FLOW_WORDS } from '../ip-output.ts';
import { TCP_END, TCP_STATE } from './api.ts';
import { destroy } from './ends.ts';
import { NO_FLOW } from './flow-table.ts';
import { setPathMss } from './handshake.ts';
import { seqDiff } from './seq.ts';
import type { TcpStack } from './stack.ts';
import type { Tcb } from './tcb.ts';

/** The kinds of reports, which IPv4 and IPv6 share. */
export const ICMP_KIND = {
  unreachable: 0,
  refused: 1,
  prohibited: 2,
  tooBig: 3,
} as const;

export interface IcmpReport {
  readonly kind: number;
  /** Our end, and the one that we had sent to: four words each. */
  readonly local: Int32Array;
  readonly remote: Int32Array;
  readonly localPort: number;
  readonly remotePort: number;
  /** Sequence number of the quoted segment. */
  readonly quotedWord: number;
}

const flow = new Int32Array(FLOW_WORDS);

/** True when the segment was ours and under way. */
export function onIcmpError(stack: TcpStack, report: IcmpReport): boolean {
  flow.set(report.local, 0);
  flow.set(report.remote, FLOW_REMOTE);
  const id = stack.table.find(flow, 0, wire.portPair(report.localPort, report.remotePort));
  const tcb = id === NO_FLOW ? null : stack.tcbs[id]!;
  if (tcb === null || !isUnderWay(tcb, report.quotedWord)) {
    stack.counters.tcpIcmpIgnored++;
    return false;
  }
  stack.counters.tcpIcmpErrors++;
  if (report.kind === ICMP_KIND.tooBig) {
    tcb.wantsPathMss = true;
    stack.wantOutput(tcb);
  } else if (report.kind <= ICMP_KIND.prohibited) {
    takeUnreachable(tcb, report.kind);
  }
  return true;
}

function isUnderWay(tcb: Tcb, seq: number): boolean {
  const { queue } = tcb.recovery;
  return seqDiff(seq, queue.una) >= 0 && seqDiff(seq, queue.nxt) < 0;
}

/** Before the handshake is done, there is nothing to lose (RFC 5927, section 4); later it explains a timeout at most. */
function takeUnreachable(tcb: Tcb, kind: number): void {
  if (tcb.state === TCP_STATE.synSent && kind !== ICMP_KIND.unreachable) {
    destroy(tcb, kind === ICMP_KIND.refused ? TCP_END.refused : TCP_END.unreachable);
    return;
  }
  tcb.isUnreachable = true;
}

/** The path's MTU may be another one now: the cache has learned it since the report. */
export function takePathMss(tcb: Tcb): void {
  tcb.wantsPathMss = false;
  setPathMss(tcb);
}
