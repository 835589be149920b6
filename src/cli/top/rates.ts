/** From two snapshots to what happened in between, per second. */
import type { ObjectInfo } from '../../arrakis/index.ts';
import { type CounterValues, counterOf, dropsOf, type Snapshot } from '../snapshot.ts';

export interface VnicRates {
  readonly id: number;
  readonly name: string;
  readonly domain: string;
  readonly device: string;
  readonly state: string;
  readonly rxPackets: number;
  readonly rxBits: number;
  readonly txPackets: number;
  readonly txBits: number;
  readonly drops: number;
  /** Drops by reason, those that happened, the most frequent first. */
  readonly reasons: readonly (readonly [reason: string, perSecond: number])[];
}

/** The VNICs of `now`, the busiest first. `seconds` have passed since `before`. */
export function vnicRates(before: Snapshot, now: Snapshot, seconds: number): VnicRates[] {
  const old = new Map(before.stats.map((s) => [s.vnic, s.counters]));
  const current = new Map(now.stats.map((s) => [s.vnic, s.counters]));
  const domains = new Map(
    now.objects.filter((o) => o.kind === 'domain').map((o) => [o.id, domainText(o)]),
  );
  return now.objects
    .filter((o) => o.kind === 'vnic')
    .map((vnic) => {
      const is = current.get(vnic.id) ?? {};
      const was = old.get(vnic.id) ?? is;
      const rate = (name: string): number => perSecond(was, is, name, seconds);
      const reasons = dropRates(was, is, seconds);
      return {
        id: vnic.id,
        name: vnic.name,
        domain: domains.get(vnic.owner) ?? `domain ${vnic.owner}`,
        device: String(vnic.detail.device),
        state: String(vnic.detail.state),
        rxPackets: rate('rxPackets'),
        rxBits: rate('rxBytes') * 8,
        txPackets: rate('txPackets'),
        txBits: rate('txBytes') * 8,
        drops: reasons.reduce((sum, [, count]) => sum + count, 0),
        reasons,
      };
    })
    .sort((a, b) => b.rxPackets + b.txPackets - a.rxPackets - a.txPackets || a.id - b.id);
}

function domainText(domain: ObjectInfo): string {
  const { pid } = domain.detail;
  return typeof pid === 'number' && pid > 0 ? `${domain.name} ${pid}` : domain.name;
}

/** A counter that went back was begun anew, by a device that was restarted: it counts from zero. */
function perSecond(was: CounterValues, is: CounterValues, name: string, seconds: number): number {
  const before = counterOf(was, name);
  const now = counterOf(is, name);
  return (now < before ? now : now - before) / seconds;
}

function dropRates(was: CounterValues, is: CounterValues, seconds: number): [string, number][] {
  const before = new Map(dropsOf(was));
  return dropsOf(is)
    .map(([reason, count]): [string, number] => {
      const old = before.get(reason) ?? 0;
      return [reason, (count < old ? count : count - old) / seconds];
    })
    .filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1]);
}
