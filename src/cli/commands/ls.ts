/** `arrakis ls`: what exists, whose it is, who enforces what, and what moved. */
import type { Command } from 'commander';
import { connect, formatIpv4, formatMac, type ObjectInfo } from '../../arrakis/index.ts';
import { formatLimits, type Rate } from '../../device/rate.ts';
import { counterOf, dropsOf, type Snapshot, takeSnapshot, type VnicStats } from '../snapshot.ts';
import { type Cell, formatNumber, formatTable, printJson, printLine } from '../table.ts';

export function registerLs(program: Command): void {
  program
    .command('ls')
    .description('devices, domains and VNICs, with filters, enforcement and counters')
    .option('--all', 'also queues, filters, rates, doorbells and regions')
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

function describe(snapshot: Snapshot, all: boolean): string {
  const parts = [deviceTable(snapshot.devices), domainTable(snapshot.objects), vnicTable(snapshot)];
  if (all) parts.push(otherTable(snapshot.objects));
  return parts.filter((part) => part !== '').join('\n\n');
}

function deviceTable(devices: Snapshot['devices']): string {
  const rows = devices.map((d) => [
    d.name,
    d.kind,
    d.state,
    d.mac === 0 ? '-' : formatMac(d.mac),
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
  const rows = domains.map((d) => [
    d.id,
    d.name,
    text(d.detail.pid),
    text(d.detail.uid),
    Array.isArray(d.detail.cpus) && d.detail.cpus.length > 0 ? d.detail.cpus.join(',') : 'any',
  ]);
  return formatTable(['DOMAIN', 'NAME', 'PID', 'UID', 'CPUS'], rows);
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
      formatNumber(counterOf(c, 'rxPackets')),
      // Nobody but the application counts what a direct VNIC sends.
      v.detail.sendFilter === 'NOTHING' ? '-' : formatNumber(counterOf(c, 'txPackets')),
    ];
  });
  const table = formatTable(
    ['VNIC', 'NAME', 'DOMAIN', 'DEVICE', 'DRIVER', 'STATE', 'RX', 'TX'],
    rows,
  );
  const notes = vnics.map((v) => enforcement(v, counters.get(v.id) ?? {}, objects));
  return `${table}\n\n${notes.join('\n')}`;
}

/** What a VNIC may do, who sees to it, and what was dropped. */
function enforcement(
  vnic: ObjectInfo,
  counters: VnicStats['counters'],
  objects: readonly ObjectInfo[],
): string {
  const { filters, transmit, dataPath, memory, receiveFilter, sendFilter } = vnic.detail;
  const lines = [
    `${vnic.name}: ${Array.isArray(filters) ? filters.join('; ') : 'no filter yet'}`,
    `  ${text(dataPath)}; memory: ${text(memory)}; checks receive: ${text(receiveFilter)}, send: ${text(sendFilter)}`,
  ];
  const limits = objects.filter((o) => o.kind === 'rate' && o.detail.vnic === vnic.id);
  if (limits.length > 0) lines.push(`  limits: ${limits.map(limitText).join('; ')}`);
  if (Array.isArray(transmit)) lines.splice(1, 0, `  sends: ${transmit.join('; ') || 'nothing'}`);
  const drops = dropsOf(counters).map(([reason, count]) => `${reason} ${formatNumber(count)}`);
  if (drops.length > 0) lines.push(`  dropped: ${drops.join(', ')}`);
  return lines.join('\n');
}

/** `send 100M bit/s, weight 3 (software NIC)`. */
function limitText({ detail }: ObjectInfo): string {
  const of = detail.queue === null ? '' : `queue ${detail.queue} `;
  const limits = formatLimits(detail as unknown as Rate);
  return `${of}${detail.direction} ${limits} (${detail.enforcedBy})`;
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
