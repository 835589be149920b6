/** Echo applications under the load of counting clients, while what serves them is killed. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Domain } from '../../src/arrakis/index.ts';
import { closeAll } from '../../src/ffi/fd.ts';
import type { Namespace } from '../support/network.ts';
import { until } from '../support/until.ts';
import { RawClient } from './daemon.harness.ts';
import type { ClientCounts } from './repair.client.ts';

const CLIENT_SCRIPT = fileURLToPath(new URL('./repair.client.js', import.meta.url));
const ECHO_SCRIPT = path.join(import.meta.dirname, '../../apps/echo/main.js');
const START_MS = 15_000;

export const ECHO_PORT = 7;

/** `apps/echo` on a VNIC that was prepared for it. */
export class Echo {
  readonly child: ChildProcess;
  readonly name: string;
  output = '';

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.child = child;
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
  }

  /** Started and open. `spec` is what `domain.prepare` takes. */
  static async start(domain: Domain, name: string, spec: object): Promise<Echo> {
    const vnics = [{ name, ...spec }] as Parameters<
      typeof domain.request<'domain.prepare'>
    >[1]['vnics'];
    const { fds } = await domain.request('domain.prepare', { name, uid: process.getuid!(), vnics });
    const args = [ECHO_SCRIPT, '--port', String(ECHO_PORT)];
    const env = { PATH: process.env.PATH, ARRAKIS_FD: '3' };
    const stdio = ['pipe', 'pipe', 'pipe', fds[0]!] as const;
    const child = spawn(process.execPath, args, { env, stdio: [...stdio] });
    closeAll(fds);
    const echo = new Echo(name, child);
    await until(() => echo.output !== '' || echo.ended, START_MS, `${name} echoes`);
    return echo;
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await until(() => this.ended, START_MS, `${this.name} ends`);
  }
}

/** A client process; in `namespace`, or beside the test. */
export class CountingClient {
  readonly #child: ChildProcess;
  #output = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
    });
  }

  /** Sending. `tcp` is the address and port of a server that echoes lines. */
  static async start(
    namespace: Namespace | null,
    address: string,
    intervalMs: number,
    tcp: readonly [string, number] | null = null,
  ): Promise<CountingClient> {
    const args = [CLIENT_SCRIPT, address, ECHO_PORT, intervalMs, ...(tcp ?? [])].map(String);
    const stdio: ['pipe', 'pipe', 'inherit'] = ['pipe', 'pipe', 'inherit'];
    const start = (): ChildProcess => spawn(process.execPath, args, { stdio });
    const client = new CountingClient(namespace === null ? start() : namespace.run(start));
    await until(() => client.#output.includes('sending'), START_MS, 'the client sends');
    return client;
  }

  /** Stop sending, and count. */
  async finish(): Promise<ClientCounts> {
    this.#child.stdin!.end();
    await until(() => this.#output.endsWith('}\n'), START_MS, 'the client has counted');
    return JSON.parse(this.#output.slice(this.#output.indexOf('{'))) as ClientCounts;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/** True when a daemon answers at `socket`. */
export function answersAt(socket: string): boolean {
  const client = new RawClient(socket);
  try {
    return client.codeOfRequest('hello', { protocol: 1 }) === 'ok';
  } finally {
    client.close();
  }
}
