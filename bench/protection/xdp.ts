/**
 * Contestants on AF_XDP: a VNIC on one end of a veth pair, a source of traffic on the other end, both in this thread. Who
 * sends on a veth also runs the receiver's part, so all that a packet costs is this thread's processor time.
 */

import { filter } from '../../src/arrakis/index.ts';
import type { Direction } from '../../src/device/rate.ts';
import { type AttachOptions, XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { XDP_DROP } from '../../src/drivers/af-xdp/programs/common.ts';
import { type SwitchMaps, slotOf, UPLINK } from '../../src/drivers/af-xdp/programs/index.ts';
import { type AfXdpQueue, openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import type { Assembler } from '../../src/ebpf/assembler.ts';
import { loadXdpProgram, updateLink } from '../../src/ffi/bpf.ts';
import { cpuTimeNs, threadClock } from '../../src/ffi/clock.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import type { EchoEndpoints } from '../echo/frame.ts';
import { VethLab } from '../echo/lab.ts';
import { type Contestant, HIGH_BITS_PER_SECOND } from './contest.ts';
import { guardWith, plainRedirect, steerWith } from './programs.ts';

const GEOMETRY = { frameSize: 2048, frameCount: 1024, ringSize: 256 } as const;
const ETHERNET_HEADER_LEN = 14;
/** A batch: it is through before the call that sends it returns. */
const WINDOW = 64;
const CLIENT_PORT = 40_001;
const SERVER_PORT = 7;
const CHECKED = { check: true, counters: true };

export type XdpWithout =
  | 'nothing'
  | 'send check'
  | 'receive filter'
  | 'counters'
  | 'everything'
  | 'second veth'
  | 'everything and second veth';

export interface XdpContestantOptions {
  without: XdpWithout;
  /** Whether limits are set for the VNIC. */
  rates: boolean;
}

/** Descriptors of what the switch of the interface made. They stay its own. */
function partsOf(nic: XdpInterface, vnic: XdpVnic) {
  const [steer, flows, xsks, veths, counts, limits] = nic.save().fds as [number, ...number[]];
  const { state, fds } = vnic.save();
  const maps = { flows, xsks, veths, counts, limits } as SwitchMaps;
  return { steer: steer!, guard: fds[2], id: state.owner.id, maps };
}

function exchange(link: number, name: string, program: Assembler): void {
  const fd = loadXdpProgram(name, program.encode());
  try {
    updateLink(link, fd);
  } finally {
    closeFd(fd);
  }
}

/** Put programs in place that do without. */
function takeOut(nic: XdpInterface, vnic: XdpVnic, without: XdpWithout): void {
  const { steer, guard, id, maps } = partsOf(nic, vnic);
  const frameLengthMax = vnic.grant.mtu + ETHERNET_HEADER_LEN;
  const putSteer = (program: Assembler) => exchange(steer, 'bench_steer', program);
  const putGuard = (program: Assembler) => exchange(guard!, 'bench_guard', program);
  const guardOf = { id, mac: nic.mac, frameLengthMax };
  const anything = { ...CHECKED, check: false };
  const uncounted = { ...CHECKED, counters: false };
  if (without === 'send check') putGuard(guardWith(maps, guardOf, anything));
  if (without === 'receive filter') putSteer(steerWith(maps, id, nic.mac, anything));
  if (without === 'counters') {
    putGuard(guardWith(maps, guardOf, uncounted));
    putSteer(steerWith(maps, id, nic.mac, uncounted));
  }
  if (without === 'everything') {
    putGuard(plainRedirect([maps.veths, 'veths'], UPLINK, XDP_DROP));
    putSteer(plainRedirect([maps.veths, 'veths'], slotOf(id, 0), XDP_DROP));
  }
  if (without === 'everything and second veth') {
    putSteer(plainRedirect([maps.xsks, 'xsks'], slotOf(id, 0), XDP_DROP));
  }
}

/** An AF_XDP socket on an interface, and its VNIC. */
interface Opened {
  readonly nic: XdpInterface;
  readonly vnic: XdpVnic;
  readonly queue: AfXdpQueue;
}

function open(
  interfaceName: string,
  kind: 'direct' | 'switched',
  options: Pick<AttachOptions, 'filters'>,
): Opened {
  const nic = XdpInterface.open(interfaceName);
  try {
    const all = { name: 'bench', ...GEOMETRY, ...options };
    const vnic = kind === 'direct' ? nic.attachDirect(all) : nic.attachSwitched(all);
    const queue = openAfXdpQueue(vnic.grant, { region: vnic.fds[0]!, socket: vnic.fds[1]! });
    return { nic, vnic, queue };
  } catch (error) {
    nic.close();
    throw error;
  }
}

export function xdpContestant({ without, rates }: XdpContestantOptions): Contestant {
  const isDirect = without === 'second veth' || without === 'everything and second veth';
  const lab = VethLab.create();
  const opened: Opened[] = [];
  const close = (): void => {
    for (const { queue, nic } of opened) {
      queue.close();
      nic.close();
    }
    lab.close();
  };
  const start = (end: VethLab['client'], port: number, kind: 'direct' | 'switched'): Opened => {
    const filters = [filter.udp().dstHost(end.address).dstPort(port)];
    const one = end.network.run(() => open(end.interfaceName, kind, { filters }));
    opened.push(one);
    return one;
  };
  try {
    const client = start(lab.client, CLIENT_PORT, 'direct');
    const server = start(lab.server, SERVER_PORT, isDirect ? 'direct' : 'switched');
    lab.server.network.run(() => takeOut(server.nic, server.vnic, without));
    const setLimit = (direction: Direction, packetsPerSecond: number | null): void => {
      const bitsPerSecond = packetsPerSecond === null ? HIGH_BITS_PER_SECOND : null;
      if (isDirect && direction === 'send') return;
      server.vnic.setLimit(direction, { bitsPerSecond, packetsPerSecond });
    };
    if (rates) for (const direction of ['send', 'receive'] as const) setLimit(direction, null);
    const forth: EchoEndpoints = {
      sourceMac: lab.client.mac,
      destinationMac: lab.server.mac,
      sourceAddress: lab.client.address,
      destinationAddress: lab.server.address,
      sourcePort: CLIENT_PORT,
      destinationPort: SERVER_PORT,
    };
    return {
      a: client.queue,
      b: server.queue,
      forth,
      window: WINDOW,
      both: true,
      sendsUnchecked: isDirect,
      cpuNs: () => cpuTimeNs(threadClock(0)),
      setLimit: rates ? setLimit : null,
      counted: () => {
        const { rxPackets, txPackets } = server.vnic.counters();
        return rxPackets + txPackets;
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
