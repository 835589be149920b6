/** One run: plan, world and flows of a seed; throws when anything is not as it must be. */
import assert from 'node:assert/strict';
import { formatIpv4 } from '../../../src/base/address.ts';
import { TCP_END } from '../../../src/net/tcp/api.ts';
import { Random } from '../../support/random.ts';
import { type FlowPlan, Side } from './flow.ts';
import { runPlan } from './plan.ts';
import { type SimHost, World } from './world.ts';

const PORT = 80;
const FIRST_LOCAL_PORT = 50_000;
/** No connection may stand still for longer, with all its timers backed off. */
const STILL_MS_MAX = 900_000;

export interface RunResult {
  readonly seed: number;
  readonly virtualMs: number;
  readonly bytes: number;
  readonly retransmits: number;
  /** Connections that ended as TCP_END says, by its names. */
  readonly ends: Readonly<Record<string, number>>;
}

interface Flow {
  readonly plan: FlowPlan;
  readonly client: Side;
  readonly server: Side;
}

export class Run {
  readonly world: World;
  readonly flows: Flow[];
  #lastChangeMs = 0;

  constructor(seed: number) {
    const random = new Random(seed);
    const plan = runPlan(random);
    this.world = new World(plan.link, random);
    this.flows = plan.flows.map((flow) => this.#newFlow(flow));
    for (const host of [this.world.a, this.world.b]) this.#listen(host);
  }

  run(): void {
    const { world } = this;
    const isOver = () => this.flows.every(({ client, server }) => this.#isOver(client, server));
    while (!world.run(isOver, this.#lastChangeMs + STILL_MS_MAX)) {
      if (world.clock.nowMs + STILL_MS_MAX > this.#lastChangeMs) {
        const isStill = this.#lastChangeMs + STILL_MS_MAX <= this.#nextMs();
        assert.ok(!isStill, `stuck at ${world.clock.nowMs} ms`);
      }
    }
    for (const flow of this.flows) this.#checkEnd(flow);
    world.finish();
  }

  describe(): string {
    const lines = this.flows
      .filter(({ client, server }) => !client.isWhole || !server.isWhole)
      .map(({ plan, client, server }) => {
        return `flow ${plan.id}: client ${client.describe()}\n        server ${server.describe()}`;
      });
    return [...lines, this.world.describe()].join('\n');
  }

  #nextMs(): number {
    const { a, b, clock } = this.world;
    return Math.min(clock.nextDueMs, a.nextDueMs, b.nextDueMs);
  }

  /** The server of a connection that broke off before it was open never comes to be. */
  #isOver(client: Side, server: Side): boolean {
    if (!client.isOver) return false;
    return server.isOver || server.connection === null;
  }

  #checkEnd({ plan, client, server }: Flow): void {
    const { closedAs } = client;
    if (client.isWhole && server.isWhole) return;
    const breaksOff = plan.client.abortAfter >= 0 || plan.server.abortAfter >= 0;
    const isGivenUp = closedAs === TCP_END.timedOut || server.closedAs === TCP_END.timedOut;
    assert.ok(breaksOff || isGivenUp, `flow ${plan.id} is not whole`);
  }

  #newFlow(plan: FlowPlan): Flow {
    const { world } = this;
    const changed = () => {
      this.#lastChangeMs = world.clock.nowMs;
    };
    const [from, to] = plan.fromA ? [world.a, world.b] : [world.b, world.a];
    const client = new Side(world, from, plan, true, changed);
    const server = new Side(world, to, plan, false, changed);
    world.clock.after(plan.startMs, () => {
      changed();
      client.connection = from.net.tcp.connect({
        address: formatIpv4(to.address.ip),
        port: PORT,
        localPort: FIRST_LOCAL_PORT + plan.id,
        handlers: client.handlers,
      });
    });
    return { plan, client, server };
  }

  #listen(host: SimHost): void {
    host.net.tcp.listen({
      port: PORT,
      onConnection: (connection) => {
        const { plan, server } = this.flows[connection.remotePort - FIRST_LOCAL_PORT]!;
        assert.equal(host === this.world.b, plan.fromA, 'it comes from where it should');
        assert.equal(server.connection, null, 'a connection is given once');
        server.start(connection);
        return server.handlers;
      },
    });
  }
}

export function runSeed(seed: number): RunResult {
  let run: Run | null = null;
  try {
    run = new Run(seed);
    run.run();
  } catch (cause) {
    const state = run === null ? '' : run.describe();
    const what = (cause as Error).message;
    throw new Error(`${what}\nARRAKIS_SIM_SEED=${seed} repeats this:\n${state}`, { cause });
  }
  const ends: Record<string, number> = {};
  const names = Object.entries(TCP_END);
  let bytes = 0;
  for (const side of run.flows.flatMap(({ client, server }) => [client, server])) {
    const name = names.find(([, value]) => value === side.closedAs)?.[0] ?? 'none';
    ends[name] = (ends[name] ?? 0) + 1;
    bytes += side.received;
  }
  const { a, b, clock } = run.world;
  const retransmits = a.net.counters.retransmits + b.net.counters.retransmits;
  return { seed, virtualMs: clock.nowMs, bytes, retransmits, ends };
}
