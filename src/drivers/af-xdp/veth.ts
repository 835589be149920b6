/**
 * The veth pair of a switched VNIC: `ark<N>a` is the switch's end, `ark<N>b` the application's. Both stay in the
 * daemon's namespace, carry no addresses and no IPv6. The alias tells a restarted daemon whose they were.
 */
import fs from 'node:fs';
import { ArrakisError } from '../../base/errors.ts';
import {
  createVethPair,
  deleteLink,
  type Link,
  linkByIndex,
  listLinks,
  setLinkUp,
} from '../../ffi/netlink/index.ts';

const PAIRS_MAX = 4096;
const SWITCH_END = /^ark\d+a$/;

export interface VethPair {
  readonly name: string;
  /** Interface indices. */
  readonly switchEnd: number;
  readonly applicationEnd: number;
}

/** A new pair, both ends down, under the first free number. */
export function makeVethPair(mtu: number, alias: string): VethPair {
  const taken = new Set(listLinks().map((link) => link.name));
  for (let n = 0; n < PAIRS_MAX; n++) {
    const [a, b] = [`ark${n}a`, `ark${n}b`];
    if (taken.has(a) || taken.has(b)) continue;
    try {
      const { a: switchEnd, b: applicationEnd } = createVethPair(
        { name: a, mtu, alias },
        { name: b, mtu },
      );
      // Without it the kernel would send neighbour and multicast reports to the application.
      for (const name of [a, b]) disableIpv6(name);
      return { name: a, switchEnd, applicationEnd };
    } catch (error) {
      // Another daemon was faster with this name.
      if (!(error instanceof ArrakisError && error.code === 'ARK_IN_USE')) throw error;
    }
  }
  throw new ArrakisError('ARK_LIMIT', `there are ${PAIRS_MAX} ark* interfaces`, {
    hint: 'arrakis doctor finds those of dead daemons',
  });
}

function disableIpv6(name: string): void {
  try {
    fs.writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
  } catch {
    // A kernel without IPv6, or a container with a read-only /proc: the application sees a few stray frames.
  }
}

export function raiseVethPair(pair: VethPair): void {
  setLinkUp(pair.switchEnd);
  setLinkUp(pair.applicationEnd);
}

/** True while both ends are there and up. */
export function isVethPair(pair: VethPair): boolean {
  const { switchEnd, applicationEnd } = pair;
  const [a, b] = [linkByIndex(switchEnd), linkByIndex(applicationEnd)];
  return a?.name === pair.name && a.up && b?.peerIndex === switchEnd && b.up;
}

/** Remove a pair; one that is gone already is fine. */
export function removeVethPair(pair: VethPair): void {
  removeLink(pair.switchEnd);
}

function removeLink(index: number): void {
  try {
    deleteLink(index);
  } catch (error) {
    if (!(error instanceof ArrakisError && error.code === 'ARK_NOT_FOUND')) throw error;
  }
}

/** Switch ends whose alias starts with `aliasPrefix`: what a daemon that was killed left in this namespace. */
export function findStaleLinks(aliasPrefix: string): Link[] {
  return listLinks().filter(
    (link) =>
      link.kind === 'veth' && SWITCH_END.test(link.name) && link.alias?.startsWith(aliasPrefix),
  );
}

/** Remove them, but those whose alias `isInUse`; peers included. Names of the removed ones. */
export function removeStaleLinks(
  aliasPrefix: string,
  isInUse: (alias: string) => boolean = () => false,
): string[] {
  const stale = findStaleLinks(aliasPrefix).filter((link) => !isInUse(link.alias ?? ''));
  return stale.map((link) => {
    removeLink(link.index);
    return link.name;
  });
}
