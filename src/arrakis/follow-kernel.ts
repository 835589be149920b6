/**
 * A stack on an address that it shares with the host's kernel: neighbours, routes and MTU are the kernel's, and the kernel
 * finds the neighbours that the stack needs. Nothing is learned from traffic any more.
 */
import type { NetInterface } from '../net/interface.ts';
import type { Vnic } from './vnic.ts';

/**
 * Have `net`, which is on `vnic`, follow the kernel until the VNIC is closed; resolves when it has what the kernel knows now.
 * ARK_UNSUPPORTED when the VNIC has an address of its own. For the thread that has the connection to the daemon.
 */
export async function followKernel(vnic: Vnic, net: NetInterface): Promise<void> {
  vnic.on('network', (network) => net.mirror(network));
  const network = await vnic.network();
  net.followKernel((address) => {
    // What cannot be asked now is asked again while something waits for it.
    vnic.resolve(address).catch(() => {});
  });
  net.mirror(network);
}
