/** From a VNIC spec to an address and filters on a device, and who has them already. Decides; changes nothing. */
import { formatIpv4, type Ipv4, netmask } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import {
  admitsEvery,
  covers,
  DIM,
  equals,
  type Filter,
  intersect,
  overlaps,
  projection,
  within,
} from '../../filter/boxes.ts';
import { requireUsable } from '../../filter/build.ts';
import { filterOfRange } from '../../filter/coverage.ts';
import { formatFilter } from '../../filter/format.ts';
import { parseFilter } from '../../filter/parse.ts';
import { firstFree } from '../caps/authority.ts';
import type { NicDevice } from '../devices/device.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import type { Admission } from './vnic.ts';

export interface Addressing {
  address: Ipv4;
  prefix: number;
  gateway: Ipv4;
  /** The VNIC has the address whole; otherwise it shares the kernel's, by port. */
  ownsAddress: boolean;
  filters: Filter[];
}

/** What somebody already receives on a device. */
export interface Claim {
  device: string;
  name: string;
  ownerText: string;
  filters: readonly Filter[];
}

/**
 * Address and filters of `spec` on `device`, of which `claims` are taken; `admit` says what the asker may have, null: all.
 * Throws ARK_BAD_ARGUMENT, ARK_IN_USE, ARK_NOT_PERMITTED.
 */
export function planAddress(
  spec: VnicSpec,
  device: NicDevice,
  claims: readonly Claim[],
  admit: Admission | null = null,
): Addressing {
  const shared = sharedAddress(spec, device);
  const addressing = shared ?? ownAddress(spec, device, claims, admit);
  // First: who may not have them does not learn who has.
  admit?.filters(addressing.filters);
  checkClaims(addressing.filters, device.name, claims, null);
  return addressing;
}

function sharedAddress(spec: VnicSpec, device: NicDevice): Addressing | null {
  if (!device.sharesAddress) return null;
  if (spec.address !== undefined && spec.address !== device.address) return null;
  if (device.address === 0) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${device.name} has no IPv4 address to share`, {
      hint: `give the VNIC one: ${spec.device},ip=10.0.0.2/24`,
    });
  }
  const { address } = device;
  const { ports = [], filters: texts = [] } = spec;
  if (ports.length + texts.length === 0) {
    throw new ArrakisError(
      'ARK_BAD_ARGUMENT',
      `${formatIpv4(address)} is shared with the kernel, so the VNIC needs ports`,
      { hint: `name them (${spec.device},port=udp:7) or an address of its own (ip=...)` },
    );
  }
  const here = within({ destination: [address, address] });
  const filters = ports.map(({ protocol, first, last }) =>
    filterOfRange({ protocol, first: address, last: address, portFirst: first, portLast: last }),
  );
  for (const text of texts) filters.push(sharedFilter(parseFilter(text), here));
  const prefix = spec.prefix ?? device.prefix;
  return { address, prefix, gateway: spec.gateway ?? device.gateway, ownsAddress: false, filters };
}

/** A filter of packets to the shared address: it says nothing of the destination, or just that. */
function sharedFilter(filter: Filter, here: Filter): Filter {
  const own = admitsEvery(filter, DIM.destination) ? intersect(filter, here) : filter;
  if (covers([here], own) && !equals(here, own)) return requireUsable(own);
  const whose = equals(here, own) ? 'takes the whole address' : 'goes beyond the shared address';
  throw new ArrakisError('ARK_BAD_ARGUMENT', `filter "${formatFilter(filter)}" ${whose}`, {
    hint: 'name the protocol and ports; or an address of its own (ip=...)',
  });
}

function ownAddress(
  spec: VnicSpec,
  device: NicDevice,
  claims: readonly Claim[],
  admit: Admission | null,
): Addressing {
  const { ports = [], filters: texts = [] } = spec;
  if (ports.length + texts.length > 0) {
    throw new ArrakisError(
      'ARK_BAD_ARGUMENT',
      'a VNIC with an address of its own receives every port of it',
      { hint: 'leave port= and filter= out, or ip= where the interface address is to be shared' },
    );
  }
  const address = spec.address ?? freeAddress(device, claims, admit);
  if (address === device.address) {
    throw new ArrakisError('ARK_IN_USE', `the host itself has ${formatIpv4(address)}`, {
      hint: 'choose another address of the network',
    });
  }
  const top = address >>> 24;
  if (top === 0 || top === 127 || top >= 224) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${formatIpv4(address)} is no host's address`, {
      hint: 'choose a unicast address',
    });
  }
  const prefix = spec.prefix ?? (device.prefix === 0 ? 24 : device.prefix);
  // The device's gateway is of use only to those on its network.
  const near = ((address ^ device.address) & netmask(device.prefix)) === 0;
  const gateway = spec.gateway ?? (near ? device.gateway : 0);
  const filters = [within({ destination: [address, address] })];
  return { address, prefix, gateway, ownsAddress: true, filters };
}

function freeAddress(device: NicDevice, claims: readonly Claim[], admit: Admission | null): Ipv4 {
  if (!device.assignsAddresses) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `the VNIC on ${device.name} needs an address`, {
      hint: `write it as ${device.name},ip=10.0.0.2/24`,
    });
  }
  const here = claims.filter((claim) => claim.device === device.name);
  const claimed = projection(
    here.flatMap((claim) => claim.filters),
    DIM.destination,
  );
  const taken = [[device.address, device.address] as const, ...claimed]
    .map(([from, to]) => ({ first: from, last: to }))
    .sort((a, b) => a.first - b.first);
  const network = (device.address & netmask(device.prefix)) >>> 0;
  const broadcast = (network | ~netmask(device.prefix)) >>> 0;
  const allowed = admit === null ? [{ first: 0, last: 0xffffffff }] : admit.within();
  const address = firstFree(allowed, network + 1, broadcast - 1, taken);
  if (address !== null) return address;
  throw new ArrakisError('ARK_LIMIT', `every address of ${device.name} is taken`, {
    hint: 'close a VNIC, or start the daemon with a wider --tap-address',
  });
}

/** Throws ARK_IN_USE naming the owner when one of `filters` overlaps a claim of another VNIC than `self`. */
export function checkClaims(
  filters: readonly Filter[],
  device: string,
  claims: readonly Claim[],
  self: string | null,
): void {
  for (const claim of claims) {
    if (claim.device !== device || claim.name === self) continue;
    for (const theirs of claim.filters) {
      const ours = filters.find((filter) => overlaps(filter, theirs));
      if (ours === undefined) continue;
      throw new ArrakisError(
        'ARK_IN_USE',
        `${formatFilter(ours)} on ${device} belongs to VNIC ${claim.name} of ${claim.ownerText}` +
          ` (${formatFilter(theirs)})`,
        { hint: 'choose another address or port; `arrakis ls` shows who has which' },
      );
    }
  }
}
