/**
 * Each side's receive work on its own processor.
 *
 * On a veth pair whoever sends also runs the receiver's softirq, on its own core: a server would be charged for its
 * client's receive path, and be given its own for nothing. Between machines neither happens. So for throughput
 *
 * - the server's interface is polled by a timer on the server's core: `gro_flush_timeout`, with interrupts deferred for
 *   ever by `napi_defer_hard_irqs`. That is a NIC's interrupt moderation, and its interrupt's affinity. The timer
 *   stays on the core that handled the frame before it, so one frame sent from that core puts it there.
 * - the client polls its interface itself (`SelfPolled`), and so never waits for a timer.
 *
 * See "NAPI" in the kernel's Documentation/networking. Both settings end with the interface.
 */
import { spawnSync } from 'node:child_process';
import { ArrakisError } from '../../src/base/errors.ts';
import { closeFd, writeFd } from '../../src/ffi/fd.ts';
import { linkByName } from '../../src/ffi/netlink/index.ts';
import type { NetworkNamespace } from '../../src/ffi/network-namespace.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { getAffinity, setAffinity } from '../../src/ffi/process.ts';
import type { LabEnd } from './lab.ts';

/** Polls that find nothing before interrupts come back: never, as far as a benchmark goes. The kernel's maximum. */
const FOR_EVER = 0x7fffffff;
/** For a socket that polls: interrupts stay away while it does, and come back this long after it stopped. */
const POLLED_DEFER = 2;
const POLLED_TIMEOUT_US = 200;
/** Where the shell of `setNapi` has its sysfs; only it sees that, in a mount namespace of its own. */
const SYSFS = '/tmp';
/** IEEE 802 local experimental EtherType 1: no stack answers it. */
const ETHERTYPE_NOBODY = 0x88b5;
const FRAME_LEN = 60;

/** Have `here`'s frames handled on `cpu`, every `everyUs` microseconds, whoever sends them. Needs root. */
export function pollByTimer(here: LabEnd, there: LabEnd, cpu: number, everyUs: number): void {
  setNapi(here, FOR_EVER, everyUs);
  const before = getAffinity();
  setAffinity([cpu]);
  try {
    there.network.run(() => sendOne(linkByName(there.interfaceName)!.index));
  } finally {
    setAffinity(before);
  }
}

/** Let a socket on `here` poll it without interrupts in between. Needs root. */
export function allowSelfPolling(here: LabEnd): void {
  setNapi(here, POLLED_DEFER, POLLED_TIMEOUT_US);
}

/** Back to what a veth does by itself: the sender handles what it sends. */
export function pollBySender(here: LabEnd): void {
  setNapi(here, 0, 0);
}

/**
 * Only a sysfs that was mounted in a network namespace shows that namespace's interfaces. It is mounted on a directory
 * that is no sysfs, because the same one cannot be mounted twice on one place: `end` may be in our own namespace.
 */
function setNapi(end: LabEnd, deferHardIrqs: number, timeoutUs: number): void {
  const dir = `${SYSFS}/class/net/${end.interfaceName}`;
  const script = [
    `mount -t sysfs sysfs ${SYSFS}`,
    `echo ${deferHardIrqs} > ${dir}/napi_defer_hard_irqs`,
    `echo ${timeoutUs * 1000} > ${dir}/gro_flush_timeout`,
  ].join(' && ');
  const result = end.network.run(() =>
    spawnSync('unshare', ['--mount', 'sh', '-c', script], { encoding: 'utf8' }),
  );
  if (result.status === 0) return;
  const reason = result.error?.message ?? result.stderr.trim();
  throw new ArrakisError(
    'ARK_UNSUPPORTED',
    `cannot set how ${end.interfaceName} is polled: ${reason}`,
    {
      hint: 'it needs root, Linux 5.8 or later, and the programs unshare and mount',
    },
  );
}

function sendOne(ifIndex: number): void {
  const frame = Buffer.alloc(FRAME_LEN);
  frame.fill(0xff, 0, 6);
  frame.writeUInt16BE(ETHERTYPE_NOBODY, 12);
  const fd = openPacketSocket(ifIndex);
  try {
    writeFd(fd, frame);
  } finally {
    closeFd(fd);
  }
}

/** Where a namespace can be entered by another process of ours while this one holds it. */
export const pathOf = (network: NetworkNamespace): string =>
  `/proc/${process.pid}/fd/${network.fd}`;
