/** The screen of `arrakis top`: lines of at most `width` characters. */
import type { DeviceInfo } from '../../control/protocol.ts';
import { type Cell, formatTable } from '../table.ts';
import type { VnicRates } from './rates.ts';

/** What is shown of one moment. CPU shares are of one processor; null when the process cannot be seen. */
export interface TopView {
  readonly time: string;
  readonly daemonCpu: number | null;
  readonly devices: readonly (DeviceInfo & { readonly cpu: number | null })[];
  readonly vnics: readonly VnicRates[];
}

const NAME_WIDTH = 12;
const DOMAIN_WIDTH = 14;
const DEVICE_WIDTH = 8;
const REASONS_SHOWN = 4;

export function topScreen(view: TopView, width: number, height: number): string[] {
  const lines = [
    `arrakis top  ${view.time}  arrakisd ${percent(view.daemonCpu)}  VNICs ${view.vnics.length}`,
    ...view.devices.map(deviceLine),
    '',
  ];
  if (view.vnics.length === 0) lines.push('no VNICs; `arrakis run --vnic soft0 -- APP` starts one');
  else lines.push(...vnicLines(view.vnics));
  const shown = lines.slice(0, Math.max(4, height));
  if (shown.length < lines.length)
    shown[shown.length - 1] = `… ${lines.length - shown.length + 1} more lines`;
  return shown.map((line) => cut(line, width));
}

function deviceLine(device: TopView['devices'][number]): string {
  const process = device.pid === 0 ? '' : `  pid ${device.pid} ${percent(device.cpu)}`;
  const restarts = device.restarts === 0 ? '' : `  restarts ${device.restarts}`;
  return `  ${device.name} ${device.state}${process}${restarts}  ${device.detail}`;
}

function vnicLines(vnics: readonly VnicRates[]): string[] {
  const heading = ['VNIC', 'DOMAIN', 'DEVICE', 'RX/s', 'bit/s', 'TX/s', 'bit/s', 'DROP/s'];
  const rows = vnics.map((v): Cell[] => [
    cut(v.name, NAME_WIDTH),
    cut(v.domain, DOMAIN_WIDTH),
    cut(v.device, DEVICE_WIDTH),
    ...(v.state === 'open'
      ? [v.rxPackets, v.rxBits, v.txPackets, v.txBits, v.drops].map(compact)
      : ['-', '-', '-', '-', '-']),
  ]);
  const [head, ...lines] = formatTable(heading, rows).split('\n');
  return [
    head!,
    ...lines.flatMap((line, i) => {
      const { reasons } = vnics[i]!;
      if (reasons.length === 0) return [line];
      const text = reasons.slice(0, REASONS_SHOWN).map(([why, rate]) => `${why} ${compact(rate)}`);
      return [line, `  dropped/s: ${text.join(', ')}`];
    }),
  ];
}

const UNITS = ['', 'k', 'M', 'G', 'T'] as const;

/** Three digits and a unit: `12.3M`. */
export function compact(value: number): string {
  let unit = 0;
  let scaled = value;
  while (scaled >= 999.5 && unit < UNITS.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)}${UNITS[unit]}`;
}

const percent = (share: number | null): string =>
  share === null ? '-' : `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)}%`;

const cut = (text: string, width: number): string =>
  text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
