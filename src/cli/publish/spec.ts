/**
 * Ports of the host that lead to a VNIC, as people write them:
 *
 *   [ADDRESS:]HOSTPORT:PORT[/tcp|/udp]      8080:80, 0.0.0.0:8080:80, 5353:53/udp, [::1]:8080:80
 *
 * Without an address only programs on this machine get in (127.0.0.1).
 */
import { isIP } from 'node:net';
import { ArrakisError } from '../../base/errors.ts';

export interface PublishSpec {
  readonly protocol: 'tcp' | 'udp';
  /** Of the host. */
  readonly address: string;
  readonly hostPort: number;
  /** Of the VNIC. */
  readonly port: number;
}

export const PUBLISH_FORM = '[ADDRESS:]HOSTPORT:PORT[/udp]';
const DEFAULT_ADDRESS = '127.0.0.1';
const PORT_MAX = 65_535;

/** ARK_USAGE, with the form as hint. */
export function parsePublish(text: string): PublishSpec {
  const match = /^(?:(\[[^\]]*\]|[^:[\]]*):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  if (match === null) throw usage(`"${text}" says no ports to publish`);
  const [, written = DEFAULT_ADDRESS, hostPort, port, protocol = 'tcp'] = match;
  const address = written.replace(/^\[|\]$/g, '');
  if (isIP(address) === 0) throw usage(`"${written}" is not an address`);
  return {
    protocol: protocol as PublishSpec['protocol'],
    address,
    hostPort: portOf(hostPort!),
    port: portOf(port!),
  };
}

export function formatPublish({ protocol, address, hostPort, port }: PublishSpec): string {
  const written = address.includes(':') ? `[${address}]` : address;
  return `${written}:${hostPort}:${port}/${protocol}`;
}

function portOf(text: string): number {
  const port = Number(text);
  if (port >= 1 && port <= PORT_MAX) return port;
  throw usage(`${text} is not a port`);
}

const usage = (text: string): ArrakisError =>
  new ArrakisError('ARK_USAGE', text, { hint: PUBLISH_FORM });
