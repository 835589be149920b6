/**
 * `arrakis run --vnic soft0,ip=10.77.0.2/24 -- dist/apps/echo/main.js [--port 7] [--stats]`
 *
 * Echoes UDP and answers ping on a VNIC of its own until it is told to end, or the VNIC goes.
 */
import { parseArgs } from 'node:util';
import {
  ArrakisError,
  connect,
  formatIpv4,
  formatNetCounters,
  monotonicMs,
  NetInterface,
  netTurn,
} from '../../src/arrakis/index.ts';
import { serveEcho } from './echo.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '7' },
      stats: { type: 'boolean', default: false },
    },
  });
  const domain = await connect({ name: 'echo' });
  const vnic = await domain.openVnic();
  const net = new NetInterface(vnic);
  const echo = serveEcho(net, Number(values.port));
  const { turn, timeoutMs } = netTurn(net, monotonicMs);
  const loop = vnic.poll(turn, { timeoutMs });
  vnic.on('gone', (reason) => {
    process.exitCode = 1;
    console.error(`echo: ${vnic.name} is gone: ${reason}`);
  });
  process.once('SIGINT', () => loop.stop());
  process.once('SIGTERM', () => loop.stop());
  const { address, name, driver } = vnic;
  console.log(`echo: udp ${formatIpv4(address)}:${values.port} on ${name} (${driver})`);
  await loop.done;
  if (values.stats) {
    console.log(
      `echo: ${echo.datagrams} datagrams, ${echo.bytes} bytes, ${echo.fromEcho} from echo ports`,
    );
    console.log(`net: ${formatNetCounters(net.counters)}`);
  }
  net.close();
  await domain.close();
}

main().catch((error: unknown) => {
  const hint = error instanceof ArrakisError ? error.hint : undefined;
  console.error(`echo: ${(error as Error).message}${hint === undefined ? '' : `\n  ${hint}`}`);
  process.exitCode = 1;
});
