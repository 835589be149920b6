/** An attacker's control connections: whatever it likes to ask, and everything that it is told. */
import { ControlChannel, openControlSocket } from '../../../src/arrakis/index.ts';
import type { VnicInfo } from '../../../src/control/protocol.ts';
import { parseVnicSpec } from '../../../src/control/vnic-spec.ts';
import { closeAll } from '../../../src/ffi/fd.ts';
import { until } from '../../support/until.ts';
import { codeOf } from '../actor.ts';

const TOLD_MS = 10_000;

export interface Told {
  readonly name: string;
  readonly body: Record<string, unknown>;
}

type Takes = (name: string, body: unknown, fds: number[]) => boolean;

let first: Promise<Control> | null = null;

export class Control {
  readonly channel: ControlChannel;
  readonly told: Told[] = [];
  domain = 0;

  constructor(takes: Takes = () => false) {
    this.channel = new ControlChannel(openControlSocket(), {
      onEvent: (name, body, fds) => {
        if (takes(name, body, fds)) return;
        closeAll(fds);
        this.told.push({ name, body: body as Record<string, unknown> });
      },
      onClose: () => {},
    });
  }

  /** `takes` is told of events before they are noted; it owns the descriptors of those that it takes. */
  static async open(takes?: Takes): Promise<Control> {
    const control = new Control(takes);
    const { reply } = await control.channel.request('hello', { protocol: 1, name: 'attacker' });
    control.domain = reply.domain;
    return control;
  }

  /** The first connection of this process. */
  static shared(): Promise<Control> {
    first ??= Control.open();
    return first;
  }

  /** Ask anything, of any form. The reply; descriptors of it are closed unless `keep` takes them. */
  async ask(
    op: string,
    args: object = {},
    keep: (fds: number[]) => void = closeAll,
  ): Promise<Record<string, unknown>> {
    const { reply, fds } = await this.channel.request(op as never, args as never);
    keep(fds);
    return reply as Record<string, unknown>;
  }

  /** The code of what comes of it; 'ok' when it was done. */
  async codeOfAsking(op: string, args: object = {}): Promise<string> {
    return this.ask(op, args).then(() => 'ok', codeOf);
  }

  async openVnic(spec: string): Promise<{ info: VnicInfo; fds: number[] }> {
    const { reply, fds } = await this.channel.request('vnic.open', { spec: parseVnicSpec(spec) });
    return { info: reply, fds };
  }

  /** The event `name` that fits, when it comes. */
  async hears(name: string, fits: (body: Told['body']) => boolean = () => true): Promise<Told> {
    const find = () => this.told.find((event) => event.name === name && fits(event.body));
    await until(() => find() !== undefined, TOLD_MS, `${name} is told`);
    return find()!;
  }

  close(): void {
    this.channel.close();
  }
}
