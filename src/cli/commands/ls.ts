/** `arrakis ls`: what exists, whose it is, who enforces what, and what moved. */
import type { Command } from 'commander';
import {
  connect,
  type Domain,
  formatIpv4,
  formatMac,
  type ObjectInfo,
} from '../../arrakis/index.ts';
import type { ReplyOf } from '../../control/protocol.ts';
import { type Cell, formatNumber, formatTable, printJson, printLine } from '../table.ts';

type VnicStats = ReplyOf<'stats'>['vnics'][number];
type Devices = ReplyOf<'device.list'>['devices'];

export interface Snapshot {
  devices: Devices;
  objects: ObjectInfo[];
  stats: VnicStats[];
}

export function registerLs(program: Command): void {
  program
    .command('ls')
    .description('devices, domains and VNICs, with filters, enforcement and counters')
    .option('--all', 'also queues, filters, doorbells and regions')
    .option('--json', 'print everything as JSON')
    .action(async (options: { all?: boolean; json?: boolean }) => {
      const domain = await connect({ name: 'arrakis-ls' });
      try {
        const snapshot = await takeSnapshot(domain);
        if (options.json) printJson(snapshot);
        else printLine(describe(snapshot, options.all === true));
      } finally {
        await domain.close();
      }
    });
}

/** Everything that this user may see, page by page. */
export async function takeSnapshot(domain: Domain): Promise<Snapshot> {
  const objects: ObjectInfo[] = [];
  for (let after = 0; ; ) {
    const { reply } = await domain.request('list', { after });
    objects.push(...reply.objects);
    if (reply.omitted === 0 || reply.objects.length === 0) break;
    after = reply.objects.at(-1)!.id;
  }
  const stats: VnicStats[] = [];
  for (let after = 0; ; ) {
    const { reply } = await domain.request('stats', { after });
    stats.push(...reply.vnics);
    if (reply.omitted === 0 || reply.vnics.length === 0) break;
    after = reply.vnics.at(-1)!.vnic;
  }
  const { devices } = (await domain.request('device.list', {})).reply;
  return { devices, objects, stats };
}

function describe(snapshot: Snapshot, all: boolean): string {
  const parts = [deviceTable(snapshot.devices), domainTable(snapshot.objects), vnicTable(snapshot)];
  if (all) parts.push(otherTable(snapshot.objects));
  return parts.filter((part) => part !== '').join('\n\n');
}

function deviceTable(devices: Devices): string {
  const rows = devices.map((d) => [
    d.name,
    d.kind,
    d.state,
    formatMac(d.mac),
    d.address === 0 ? '-' : `${formatIpv4(d.address)}/${d.prefix}`,
    d.mtu,
    d.vnics,
    d.detail,
  ]);
  return formatTable(['DEVICE', 'KIND', 'STATE', 'MAC', 'ADDRESS', 'MTU', 'VNICS', 'DETAIL'], rows);
}

function domainTable(objects: readonly ObjectInfo[]): string {
  const domains = objects.filter((o) => o.kind === 'domain');
  if (domains.length === 0) return 'no domains';
  const rows = domains.map((d) => [d.id, d.name, text(d.detail.pid), text(d.detail.uid)]);
  return formatTable(['DOMAIN', 'NAME', 'PID', 'UID'], rows);
}

function vnicTable({ objects, stats }: Snapshot): string {
  const vnics = objects.filter((o) => o.kind === 'vnic');
  if (vnics.length === 0) return 'no VNICs';
  const counters = new Map(stats.map((s) => [s.vnic, s.counters]));
  const rows = vnics.map((v): Cell[] => {
    const c = counters.get(v.id) ?? {};
    return [
      v.id,
      v.name,
      v.owner,
      text(v.detail.device),
      [text(v.detail.driver), v.detail.mode ?? ''].filter(Boolean).join(' '),
      text(v.detail.state),
      formatNumber(Number(c.rxPackets ?? 0)),
      // Nobody but the application counts what a direct VNIC sends.
      v.detail.sendUnchecked === true ? '-' : formatNumber(Number(c.txPackets ?? 0)),
    ];
  });
  const table = formatTable(
    ['VNIC', 'NAME', 'DOMAIN', 'DEVICE', 'DRIVER', 'STATE', 'RX', 'TX'],
    rows,
  );
  return `${table}\n\n${vnics.map((v) => enforcement(v, counters.get(v.id) ?? {})).join('\n')}`;
}

/** What a VNIC may do, who sees to it, and what was dropped. */
function enforcement(vnic: ObjectInfo, counters: VnicStats['counters']): string {
  const filters = Array.isArray(vnic.detail.filters) ? vnic.detail.filters.join('; ') : '';
  const who =
    vnic.detail.driver === 'virtio'
      ? 'software NIC checks both directions'
      : vnic.detail.sendUnchecked === true
        ? 'XDP program checks what it receives; NOTHING checks what it sends (direct)'
        : 'XDP programs check both directions';
  const drops = Object.entries((counters.drops ?? {}) as Record<string, number>)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${reason} ${formatNumber(count)}`);
  const dropped = drops.length === 0 ? 'no drops' : `dropped: ${drops.join(', ')}`;
  return `${vnic.name}: ${filters || 'no filter yet'}\n  ${who}; ${dropped}`;
}

function otherTable(objects: readonly ObjectInfo[]): string {
  const others = objects.filter((o) => o.kind !== 'domain' && o.kind !== 'vnic');
  const rows = others.map((o) => [
    o.id,
    o.kind,
    o.owner,
    o.name,
    Object.entries(o.detail)
      .map(([key, value]) => `${key}=${text(value)}`)
      .join(' '),
  ]);
  return rows.length === 0 ? '' : formatTable(['ID', 'KIND', 'DOMAIN', 'NAME', 'DETAIL'], rows);
}

const text = (value: unknown): string =>
  value === null || value === undefined ? '-' : String(value);
