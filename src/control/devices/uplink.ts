/** The uplink of the software NIC: a TAP interface by which the host's kernel is on the VNICs' network. */
import { formatIpv4, type Ipv4, type Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeFd } from '../../ffi/fd.ts';
import { addAddress, requireLink, setLinkUp } from '../../ffi/netlink/index.ts';
import { openTap } from '../../ffi/tap.ts';

export class Uplink {
  readonly name: string;
  readonly mac: Mac;
  /** The TAP descriptor: kept for the next process when one dies. The interface goes with its last copy. */
  readonly fd: number;
  #closed = false;

  private constructor(name: string, mac: Mac, fd: number) {
    this.name = name;
    this.mac = mac;
    this.fd = fd;
  }

  /** Go on with the interface `name` that the daemon before made; owns `fd`. Throws when it is no more. */
  static adopt(name: string, fd: number): Uplink {
    return new Uplink(name, requireLink(name).mac, fd);
  }

  /** Make the interface `name`, give it `address` and bring it up, in the namespace of the calling thread. */
  static open(name: string, address: Ipv4, prefix: number): Uplink {
    let tap: ReturnType<typeof openTap>;
    try {
      tap = openTap({ name, vnetHeader: true });
    } catch (error) {
      if (error instanceof ArrakisError && error.code === 'ARK_IN_USE') {
        throw new ArrakisError('ARK_IN_USE', error.message, {
          hint: 'another arrakisd has it: end that one, or start with --no-tap or another --tap-name',
          cause: error,
        });
      }
      throw error;
    }
    try {
      const link = requireLink(tap.name);
      addAddress(link.index, address, prefix);
      setLinkUp(link.index);
      return new Uplink(tap.name, requireLink(tap.name).mac, tap.fd);
    } catch (error) {
      closeFd(tap.fd);
      if (error instanceof ArrakisError) throw error;
      throw new ArrakisError('ARK_SYSCALL', `no uplink ${name} with ${formatIpv4(address)}`, {
        cause: error,
      });
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeFd(this.fd);
  }
}
