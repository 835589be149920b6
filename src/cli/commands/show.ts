/** `arrakis show`: one object with all that is known of it, and what belongs to it. */
import type { Command } from 'commander';
import { connect, formatIpv4, formatMac, type ObjectInfo } from '../../arrakis/index.ts';
import type { DeviceInfo } from '../../control/protocol.ts';
import {
  type CounterValues,
  dropsOf,
  findObject,
  type Snapshot,
  takeSnapshot,
} from '../snapshot.ts';
import { formatNumber, formatTable, printJson, printLine } from '../table.ts';

export function registerShow(program: Command): void {
  program
    .command('show')
    .description('everything about one device, domain, VNIC or other object')
    .argument('<object>', 'its number or name (arrakis ls --all)')
    .option('--json', 'print it as JSON')
    .action(async (wanted: string, options: { json?: boolean }) => {
      const domain = await connect({ name: 'arrakis-show' });
      try {
        const snapshot = await takeSnapshot(domain);
        const device = snapshot.devices.find((d) => d.name === wanted);
        if (device !== undefined) showDevice(device, snapshot, options.json === true);
        else showObject(findObject(snapshot, wanted), snapshot, options.json === true);
      } finally {
        await domain.close();
      }
    });
}

function showDevice(device: DeviceInfo, snapshot: Snapshot, json: boolean): void {
  const vnics = snapshot.objects.filter(
    (o) => o.kind === 'vnic' && o.detail.device === device.name,
  );
  if (json) {
    printJson({ device, vnics });
    return;
  }
  const { name, mac, address, prefix, ...rest } = device;
  printLine(`device ${name}`);
  printLine(
    pairs({
      ...rest,
      mac: mac === 0 ? '-' : formatMac(mac),
      address: address === 0 ? '-' : `${formatIpv4(address)}/${prefix}`,
    }),
  );
  printBelonging(vnics);
}

function showObject(object: ObjectInfo, snapshot: Snapshot, json: boolean): void {
  const counters = snapshot.stats.find((s) => s.vnic === object.id && object.kind === 'vnic');
  const belonging = snapshot.objects.filter((o) => o !== object && belongs(o, object));
  if (json) {
    printJson({ object, counters: counters?.counters ?? null, belonging });
    return;
  }
  const owner = snapshot.objects.find((o) => o.kind === 'domain' && o.id === object.owner);
  const ownerText = object.owner === 0 ? 'arrakisd' : `${owner?.name ?? '?'} (${object.owner})`;
  printLine(`${object.kind} ${object.id} "${object.name}"`);
  printLine(
    pairs({
      owner: ownerText,
      created: new Date(object.createdMs).toISOString(),
      ...readable(object.detail),
    }),
  );
  if (counters !== undefined) printCounters(counters.counters);
  printBelonging(belonging);
}

function belongs(object: ObjectInfo, to: ObjectInfo): boolean {
  return to.kind === 'domain' ? object.owner === to.id : object.detail[to.kind] === to.id;
}

/** Addresses travel as numbers. */
function readable(detail: ObjectInfo['detail']): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(detail)) {
    if (key === 'mac' && typeof value === 'number') shown[key] = formatMac(value);
    else if ((key === 'address' || key === 'gateway') && typeof value === 'number') {
      shown[key] = value === 0 ? '-' : formatIpv4(value);
    } else shown[key] = value;
  }
  return shown;
}

function printCounters(counters: CounterValues): void {
  printLine('\ncounters');
  const { drops: _, ...rest } = counters;
  printLine(pairs(rest));
  const drops = dropsOf(counters);
  if (drops.length === 0) return;
  printLine('\ndropped');
  printLine(
    formatTable(
      ['  REASON', 'PACKETS'],
      drops.map(([reason, count]) => [`  ${reason}`, formatNumber(count)]),
    ),
  );
}

function printBelonging(objects: readonly ObjectInfo[]): void {
  if (objects.length === 0) return;
  printLine('\nhas');
  printLine(
    formatTable(
      ['  KIND', 'ID', 'NAME'],
      objects.map((o) => [`  ${o.kind}`, o.id, o.name]),
    ),
  );
}

/** `key  value` lines, in columns. Groups of counters are shown as `a 1, b 2`. */
function pairs(values: Record<string, unknown>): string {
  const entries = Object.entries(values);
  const width = Math.max(...entries.map(([key]) => key.length));
  return entries.map(([key, value]) => `  ${key.padEnd(width)}  ${text(value)}`).join('\n');
}

function text(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.join('; ');
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : value.toFixed(3);
  if (typeof value !== 'object') return String(value);
  return Object.entries(value)
    .map(([key, count]) => `${key} ${count}`)
    .join(', ');
}
