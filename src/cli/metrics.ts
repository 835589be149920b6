/**
 * A snapshot as Prometheus metrics. Names: arrakis_<what>_<unit>[_total]; labels name VNIC, domain and device.
 * Metrics are made anew for each scrape: an object that is gone is gone from the next one.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import { counterOf, dropsOf, type Snapshot } from './snapshot.ts';
import { cpuSeconds } from './top/cpu.ts';

const VNIC_LABELS = ['vnic', 'name', 'domain', 'device'] as const;
const VNIC_COUNTERS = [
  ['arrakis_vnic_receive_packets_total', 'Packets delivered to the VNIC.', 'rxPackets'],
  ['arrakis_vnic_receive_bytes_total', 'Bytes of those, without FCS.', 'rxBytes'],
  ['arrakis_vnic_transmit_packets_total', 'Packets that the VNIC sent.', 'txPackets'],
  ['arrakis_vnic_transmit_bytes_total', 'Bytes of those, without FCS.', 'txBytes'],
] as const;

/** The text exposition format. */
export function collectMetrics(snapshot: Snapshot): Promise<string> {
  const registry = new Registry();
  addVnics(registry, snapshot);
  addDevices(registry, snapshot);
  addObjects(registry, snapshot);
  addDaemon(registry, snapshot);
  return registry.metrics();
}

function addVnics(registry: Registry, { objects, stats }: Snapshot): void {
  const registers = [registry];
  const counters = VNIC_COUNTERS.map(([name, help, key]) => ({
    key,
    metric: new Counter({ name, help, labelNames: VNIC_LABELS, registers }),
  }));
  const drops = new Counter({
    name: 'arrakis_vnic_dropped_packets_total',
    help: 'Packets dropped, by reason.',
    labelNames: [...VNIC_LABELS, 'reason'],
    registers,
  });
  const domains = new Map(objects.filter((o) => o.kind === 'domain').map((o) => [o.id, o.name]));
  const values = new Map(stats.map((s) => [s.vnic, s.counters]));
  for (const vnic of objects.filter((o) => o.kind === 'vnic')) {
    const labels = {
      vnic: String(vnic.id),
      name: vnic.name,
      domain: domains.get(vnic.owner) ?? String(vnic.owner),
      device: String(vnic.detail.device),
    };
    const of = values.get(vnic.id) ?? {};
    for (const { key, metric } of counters) metric.inc(labels, counterOf(of, key));
    for (const [reason, count] of dropsOf(of)) drops.inc({ ...labels, reason }, count);
  }
}

function addDevices(registry: Registry, { devices }: Snapshot): void {
  const gauge = (name: string, help: string): Gauge<'device'> =>
    new Gauge({ name, help, labelNames: ['device'], registers: [registry] });
  const up = gauge('arrakis_device_up', '1 while the device runs.');
  const vnics = gauge('arrakis_device_vnics', 'VNICs on the device.');
  const restarts = new Counter({
    name: 'arrakis_device_restarts_total',
    help: 'Restarts of the device process.',
    labelNames: ['device'],
    registers: [registry],
  });
  const cpu = new Counter({
    name: 'arrakis_device_cpu_seconds_total',
    help: 'Processor time of the device process.',
    labelNames: ['device'],
    registers: [registry],
  });
  for (const device of devices) {
    const labels = { device: device.name };
    up.set(labels, device.state === 'running' ? 1 : 0);
    vnics.set(labels, device.vnics);
    restarts.inc(labels, device.restarts);
    const seconds = cpuSeconds(device.pid);
    if (seconds !== null) cpu.inc(labels, seconds);
  }
}

function addObjects(registry: Registry, { objects }: Snapshot): void {
  const count = new Gauge({
    name: 'arrakis_objects',
    help: 'Objects of the control plane, by kind.',
    labelNames: ['kind'],
    registers: [registry],
  });
  for (const { kind } of objects) count.inc({ kind });
}

function addDaemon(registry: Registry, { daemon }: Snapshot): void {
  for (const [key, value] of Object.entries(daemon)) {
    const name = `arrakis_daemon_${key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)}_total`;
    new Counter({ name, help: 'Counted by the daemon.', registers: [registry] }).inc(value);
  }
}
