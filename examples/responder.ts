/**
 * A host that is there and nothing more: answers ARP and ping, reports every UDP port as closed, and says each second
 * what it saw.
 *
 *   arrakis run --vnic soft0,ip=10.77.0.3/24 -- dist/examples/responder.js
 */
import {
  connect,
  formatNetCounters,
  monotonicMs,
  NetInterface,
  netTurn,
} from '../src/arrakis/index.ts';

const domain = await connect();
const vnic = await domain.openVnic();
const net = new NetInterface(vnic);
const { turn, timeoutMs } = netTurn(net, monotonicMs);
const report = setInterval(() => console.log(formatNetCounters(net.counters)), 1000);
await vnic.poll(turn, { timeoutMs }).done;
clearInterval(report);
