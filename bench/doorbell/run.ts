/**
 * `arrakis bench doorbell`: how long after it was sent an application has a packet that it slept for. Polling, the
 * doorbell in poll(2), in Node's event loop and coalesced, beside a kernel socket and an eventfd between two threads.
 */
import { formatIpv4 } from '../../src/base/address.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { LabDaemon, VethLab } from '../echo/lab.ts';
import { type Running, runToJson, startNode } from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import { PORT, READY, type Wakeups } from './stamp.ts';

export interface DoorbellBenchOptions {
  repetitions: number;
  /** Packets of a run. */
  samples: number;
  /** Microseconds that a coalesced doorbell waits. */
  usecs: number;
  /** Names of the systems to run; all when empty. */
  only: readonly string[];
  progress(line: string): void;
}

export const DOORBELL_DEFAULTS = { repetitions: 3, samples: 1000, usecs: 100 } as const;

/** How a receiver waits. */
type Mode = 'polling' | 'doorbell' | 'loop' | 'coalesced';
const MODES: readonly Mode[] = ['polling', 'doorbell', 'loop', 'coalesced'];
const SOFT_SENDER = '10.77.0.8';
const SOFT_RECEIVER = '10.77.0.7';
const RECEIVER_CPU = 0;
const SENDER_CPU = 1;
const READY_MS = 10_000;
const PACKET_MS_MAX = 20;
const SLACK_MS = 30_000;

interface System {
  readonly name: string;
  readonly link: BenchRow['link'];
  readonly mode: Mode | 'recv' | 'read';
  readonly boundBy: string;
  missing(): string | null;
  measure(options: DoorbellBenchOptions): Promise<Wakeups>;
}

const script = (name: string): URL => new URL(`./${name}.js`, import.meta.url);

/** Run `receiver` to its end, with a sender once it can receive. */
async function measure(
  receiver: Running,
  sender: (() => Running) | null,
  samples: number,
): Promise<Wakeups> {
  const result = runToJson<Wakeups>(receiver, samples * PACKET_MS_MAX + SLACK_MS);
  // Its failure is told below, once everything has ended.
  result.catch(() => {});
  let running: Running | null = null;
  try {
    const end = performance.now() + READY_MS;
    while (!receiver.output.includes(READY) && receiver.alive) {
      if (performance.now() > end) throw new Error(`${receiver.label} does not receive`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    running = sender?.() ?? null;
    return await result;
  } finally {
    await receiver.stop();
    await running?.stop();
  }
}

/** Arguments of a receiver on a VNIC: how it waits. */
const waiting = (mode: Mode, usecs: number): string[] =>
  mode === 'coalesced' ? ['doorbell', String(usecs), '0'] : [mode];

const SOFT_WAIT: Record<Mode, string> = {
  polling: '',
  doorbell: ', and that of the receiver by the call',
  loop: ", and that of the receiver by the call and Node's event loop",
  coalesced: ', the wait, and the wake-up of the receiver',
};
const XDP_WAIT: Record<Mode, string> = {
  polling: '',
  doorbell: ', and one wake-up',
  loop: ", and one wake-up of Node's event loop",
  // Only a poll that found something defers the next.
  coalesced: ', and one wake-up: a packet after a pause does not wait',
};

function softNic(mode: Mode): System {
  return {
    name: 'arrakis/virtio',
    link: 'softnic',
    mode,
    boundBy: `the wake-up of the software NIC by the kick${SOFT_WAIT[mode]}`,
    missing: () => null,
    async measure({ samples, usecs }) {
      const args = ['--no-tap', '--nic-cpu', String(SENDER_CPU)];
      const daemon = await LabDaemon.start(undefined, args);
      try {
        const env = { ...daemon.env, ARRAKIS_BENCH_COUNT: String(samples) };
        const to = ['vnic', `soft0,ip=${SOFT_RECEIVER}/24`, ...waiting(mode, usecs)];
        const from = ['vnic', `soft0,ip=${SOFT_SENDER}/24`, SOFT_RECEIVER];
        const receiver = startNode(script('receiver'), to, { cpus: [RECEIVER_CPU], env });
        const sender = () => startNode(script('sender'), from, { cpus: [SENDER_CPU], env });
        return await measure(receiver, sender, samples);
      } finally {
        await daemon.close();
      }
    },
  };
}

/** A kernel socket sends from the other end of a veth pair. */
async function overVeth(
  samples: number,
  receiver: (lab: VethLab, env: Record<string, string>) => Promise<() => Promise<void>>,
  start: (lab: VethLab, env: Record<string, string>) => Running,
): Promise<Wakeups> {
  const lab = VethLab.create();
  const env: Record<string, string> = { ARRAKIS_BENCH_COUNT: String(samples) };
  try {
    const close = await receiver(lab, env);
    try {
      const sender = () =>
        startNode(script('sender'), ['udp', formatIpv4(lab.server.address)], {
          cpus: [SENDER_CPU],
          network: lab.client.network,
        });
      return await measure(start(lab, env), sender, samples);
    } finally {
      await close();
    }
  } finally {
    lab.close();
  }
}

const rootOnly = (): string | null =>
  process.getuid?.() === 0 ? null : 'a veth pair and AF_XDP need root';

function afXdp(mode: Mode): System {
  return {
    name: 'arrakis/af-xdp-switched',
    link: 'veth',
    mode,
    boundBy: `two veth crossings in the softirq of the sender${XDP_WAIT[mode]}`,
    missing: rootOnly,
    measure: ({ samples, usecs }) =>
      overVeth(
        samples,
        async (lab, env) => {
          const daemon = await LabDaemon.start(lab.server.network, ['--no-tap']);
          Object.assign(env, daemon.env);
          return () => daemon.close();
        },
        (lab, env) => {
          const spec = `${lab.server.interfaceName},port=udp:${PORT}`;
          const args = ['vnic', spec, ...waiting(mode, usecs)];
          return startNode(script('receiver'), args, { cpus: [RECEIVER_CPU], env });
        },
      ),
  };
}

const kernelUdp: System = {
  name: 'kernel/udp',
  link: 'veth',
  mode: 'recv',
  boundBy: "the kernel's UDP path, and one wake-up",
  missing: rootOnly,
  measure: ({ samples }) =>
    overVeth(
      samples,
      async () => async () => {},
      (lab, env) =>
        startNode(script('receiver'), ['udp', formatIpv4(lab.server.address)], {
          cpus: [RECEIVER_CPU],
          network: lab.server.network,
          env,
        }),
    ),
};

const eventfdPair: System = {
  name: 'kernel/eventfd',
  link: 'memory',
  mode: 'read',
  boundBy: 'one wake-up between two threads: nothing that sleeps is faster',
  missing: () => null,
  measure: ({ samples }) =>
    measure(
      startNode(script('receiver'), ['eventfd'], {
        cpus: [RECEIVER_CPU, SENDER_CPU],
        env: { ARRAKIS_BENCH_COUNT: String(samples) },
      }),
      null,
      samples,
    ),
};

/** Rows for every system that can run here, and why each other one cannot. */
export async function benchDoorbell(
  options: DoorbellBenchOptions,
): Promise<{ rows: BenchRow[]; missing: { system: string; reason: string }[] }> {
  const all = [eventfdPair, kernelUdp, ...MODES.map(afXdp), ...MODES.map(softNic)];
  const names = [...new Set(all.map((system) => system.name))];
  const unknown = options.only.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new ArrakisError('ARK_USAGE', `there is no system "${unknown}" to measure here`, {
      hint: `there are: ${names.join(', ')}`,
    });
  }
  const wanted = all.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
  const missing = new Map<string, string>();
  const results = new Map<System, Wakeups[]>();
  for (let repetition = 1; repetition <= options.repetitions; repetition++) {
    for (const system of wanted) {
      const reason = system.missing();
      if (reason !== null) {
        missing.set(system.name, reason);
        continue;
      }
      const which = options.repetitions > 1 ? `, run ${repetition} of ${options.repetitions}` : '';
      options.progress(`${system.name}, ${system.mode}${which}`);
      try {
        const result = await system.measure(options);
        results.set(system, [...(results.get(system) ?? []), result]);
      } catch (error) {
        missing.set(`${system.name}, ${system.mode}`, (error as Error).message);
      }
    }
  }
  const rows = [...results].flatMap(([system, runs]) => rowsOf(system, runs, options));
  return { rows, missing: [...missing].map(([system, reason]) => ({ system, reason })) };
}

function rowsOf(system: System, runs: Wakeups[], { usecs }: DoorbellBenchOptions): BenchRow[] {
  const { name, link, mode, boundBy } = system;
  const of = (key: 'p50' | 'p99' | 'p999' | 'cpu') => round1(median(runs.map((run) => run[key])));
  const params = {
    mode,
    ...(mode === 'coalesced' ? { usecs } : {}),
    samples: runs[0]!.count,
    repetitions: runs.length,
  };
  const base = { bench: 'doorbell', system: name, link, params };
  const [p50, p99, p999] = [of('p50'), of('p99'), of('p999')];
  return [
    { ...base, metric: 'wakeup', unit: 'us', value: p50, p50, p99, p999, boundBy },
    { ...base, metric: 'cpu', unit: '%', value: of('cpu') },
  ];
}

const round1 = (value: number): number => Math.round(value * 10) / 10;
