/**
 * Endpoints: a domain listens at a name, others connect. For each connection the daemon makes sealed memory for two
 * message rings and a pipe each way as a bell, gives one half to each side, and keeps no descriptor of it.
 *
 *   connect ──► told to the listener, in its backlog ──accept──► open ──leave, or the end of a side──► closed
 *
 * - A place in the backlog is free again only when the listener has accepted, even if the other side has left meanwhile:
 *   who connects and leaves in a loop cannot fill the listener's channel.
 * - Both are told who the other is, and when it leaves. The pipes tell of a death too, also without the daemon.
 */
import { ArrakisError } from '../../base/errors.ts';
import { closeAll } from '../../ffi/fd.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { pipePair } from '../../ffi/pipe.ts';
import { linkBytes, RING_BYTES_DEFAULT } from '../../message/layout.ts';
import { allRights, RIGHTS } from '../caps/rights.ts';
import type { Capability } from '../caps/space.ts';
import { dropCapability } from '../caps/withdraw.ts';
import { LIMITS } from '../limits.ts';
import type { Binding } from '../names/node.ts';
import type { ControlPlane } from '../plane.ts';
import type { EventOf, ObjectInfo } from '../protocol.ts';
import type { Domain } from './domain.ts';
import type { NameValue } from './name-table.ts';
import type { ControlObject } from './table.ts';

const PREFIX = 'endpoint:';

export interface EndpointOptions {
  readonly ringBytes?: number | undefined;
  readonly backlog?: number | undefined;
}

export interface SavedEndpoint {
  readonly createdMs: number;
  readonly name: string;
  readonly owner: number;
  readonly cap: number;
  readonly ringBytes: number;
  readonly backlog: number;
}

export interface SavedConnection {
  readonly endpoint: number;
  readonly connector: number;
  readonly accepted: boolean;
  readonly closed: boolean;
}

export class Endpoint implements ControlObject {
  readonly kind = 'endpoint';
  readonly id: number;
  readonly createdMs: number;
  /** Its path. */
  readonly name: string;
  readonly domain: Domain;
  readonly cap: Capability;
  readonly ringBytes: number;
  readonly backlog: number;
  binding: Binding<NameValue> | null = null;
  /** Connections that the listener has not accepted, and all. */
  waiting = 0;
  open = 0;

  constructor(
    made: Pick<Endpoint, 'id' | 'createdMs' | 'name' | 'domain' | 'cap' | 'ringBytes' | 'backlog'>,
  ) {
    this.id = made.id;
    this.createdMs = made.createdMs;
    this.name = made.name;
    this.domain = made.domain;
    this.cap = made.cap;
    this.ringBytes = made.ringBytes;
    this.backlog = made.backlog;
  }

  get owner(): number {
    return this.domain.id;
  }

  detail(): ObjectInfo['detail'] {
    const { ringBytes, backlog, waiting, open } = this;
    return { ringBytes, backlog, waiting, connections: open };
  }
}

interface Connection {
  readonly id: number;
  readonly endpoint: Endpoint;
  readonly connector: Domain;
  accepted: boolean;
  /** A side has left; it is still in the backlog. */
  closed: boolean;
}

/** One side of a connection: what it is told, with its descriptors. */
export interface Half {
  readonly fields: Omit<EventOf<'endpoint.connected'>, 'endpoint'>;
  readonly fds: readonly number[];
}

/** One user cannot have what is everybody's: `bytes` of connections, `here` of which there are at this endpoint already. */
function refuseUser(uid: number, { name }: Endpoint, bytes: number, here: number): void {
  const text =
    bytes > LIMITS.connectionBytesPerUidMax
      ? `the connections of uid ${uid} have all the memory that one user may have`
      : here >= LIMITS.connectionsPerEndpointUidMax
        ? `uid ${uid} has ${here} connections to ${name}, as many as one user may`
        : null;
  if (text !== null) throw new ArrakisError('ARK_LIMIT', text, { hint: 'close one first' });
}

const peerOf = ({ id, name, uid, pid }: Domain) => ({ domain: id, name, uid, pid });

export class EndpointTable {
  readonly #plane: ControlPlane;
  readonly #endpoints = new Map<number, Endpoint>();
  readonly #connections = new Map<number, Connection>();
  #nextConnection = 1;
  /** Ids of connections below are noted as used. */
  #reserved = 0;

  constructor(plane: ControlPlane) {
    this.#plane = plane;
  }

  check(domain: Domain): void {
    let own = 0;
    for (const endpoint of this.#endpoints.values()) if (endpoint.domain === domain) own++;
    if (own < LIMITS.endpointsPerDomainMax) return;
    throw new ArrakisError('ARK_LIMIT', `a domain has at most ${own} endpoints`, {
      hint: 'close one first',
    });
  }

  /** An endpoint without a name yet. */
  create(domain: Domain, path: string, options: EndpointOptions): Endpoint {
    const { objects, caps } = this.#plane;
    const birth = objects.birth();
    const rights = allRights('endpoint');
    const cap = caps.mint(domain.id, 'endpoint', `${PREFIX}${birth.id}`, rights, null);
    const { ringBytes = RING_BYTES_DEFAULT, backlog = LIMITS.backlogDefault } = options;
    const endpoint = this.#add({ ...birth, name: path, domain, cap, ringBytes, backlog });
    this.#plane.keeping.put('endpoint', endpoint.id, savedEndpoint(endpoint));
    return endpoint;
  }

  /** The endpoint of a capability with the right to connect among `rights`. */
  find(cap: Capability, rights = cap.rights): Endpoint {
    if (cap.kind !== 'endpoint') {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `capability ${cap.id} is for a ${cap.kind}`, {
        hint: 'endpoint.connect takes one of kind endpoint',
      });
    }
    if ((rights & RIGHTS.endpoint.connect) === 0) {
      throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${cap.id} is not for connecting`, {
        hint: 'ask for one with the right connect',
      });
    }
    const endpoint = this.#endpoints.get(Number(cap.object.slice(PREFIX.length)));
    if (endpoint === undefined) throw new ArrakisError('ARK_GONE', `${cap.object} is gone`);
    return endpoint;
  }

  /** Endpoint `id` of `domain`. */
  own(domain: Domain, id: number): Endpoint {
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined && (endpoint.domain === domain || domain.privileged))
      return endpoint;
    throw new ArrakisError('ARK_NOT_FOUND', `there is no endpoint ${id} of this domain`);
  }

  /** Throws ARK_LIMIT or ARK_GONE when `connector` cannot connect now. */
  checkConnect(endpoint: Endpoint, connector: Domain): void {
    const { domain, name, backlog } = endpoint;
    if (domain.closed) throw new ArrakisError('ARK_GONE', `${name}: its domain has ended`);
    let [own, here] = [0, 0];
    let bytes = linkBytes(endpoint.ringBytes);
    let ofUser = bytes;
    for (const connection of this.#connections.values()) {
      if (connection.closed) continue;
      const memory = linkBytes(connection.endpoint.ringBytes);
      bytes += memory;
      if (connection.connector === connector) own++;
      if (connection.connector.uid !== connector.uid) continue;
      ofUser += memory;
      if (connection.endpoint === endpoint) here++;
    }
    if (!connector.privileged) refuseUser(connector.uid, endpoint, ofUser, here);
    if (bytes > LIMITS.connectionBytesMax) {
      throw new ArrakisError('ARK_LIMIT', 'the connections of all domains have all the memory', {
        hint: 'listen with smaller rings (ringBytes), or close some connections',
      });
    }
    if (own >= LIMITS.connectionsPerDomainMax) {
      throw new ArrakisError('ARK_LIMIT', `a domain has at most ${own} connections`, {
        hint: 'close one first',
      });
    }
    if (endpoint.open >= LIMITS.connectionsPerEndpointMax) {
      throw new ArrakisError('ARK_LIMIT', `${name} has ${endpoint.open} connections`, {
        hint: 'try again when some have ended',
      });
    }
    if (endpoint.waiting < backlog && !domain.busy) return;
    throw new ArrakisError('ARK_LIMIT', `${name} does not keep up with those who connect`, {
      hint: 'try again in a moment',
    });
  }

  /** Make a connection and tell the listener. The connector's half; the caller closes its descriptors. */
  connect(endpoint: Endpoint, connector: Domain): Half {
    const { domain: listener, ringBytes } = endpoint;
    const fds: number[] = [];
    try {
      const memory = memfdSealed(`arrakis-link-${endpoint.id}`, linkBytes(ringBytes), true);
      fds.push(memory);
      const toListener = pipePair();
      fds.push(toListener.reader, toListener.writer);
      const toConnector = pipePair();
      fds.push(toConnector.reader, toConnector.writer);
      const connection = this.#open(endpoint, connector);
      const fields = { connection: connection.id, ringBytes };
      listener.event(
        'endpoint.connected',
        { endpoint: endpoint.id, ...fields, peer: peerOf(connector) },
        [memory, toListener.reader, toConnector.writer],
      );
      closeAll([toListener.reader, toConnector.writer]);
      return {
        fields: { ...fields, peer: peerOf(listener) },
        fds: [memory, toConnector.reader, toListener.writer],
      };
    } catch (error) {
      closeAll(fds);
      throw error;
    }
  }

  accept(domain: Domain, id: number): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.endpoint.domain !== domain || connection.accepted) {
      throw absent(id);
    }
    connection.accepted = true;
    connection.endpoint.waiting--;
    this.#note(connection);
  }

  leave(domain: Domain, id: number): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.closed) throw absent(id);
    const { connector, endpoint } = connection;
    if (connector !== domain && endpoint.domain !== domain) throw absent(id);
    this.#close(connection, domain, 'the peer left');
  }

  /** Nobody can connect any more; connections stay. Idempotent. `told`: its domain need not be. */
  end(endpoint: Endpoint, reason: string, told: boolean): void {
    if (!this.#endpoints.delete(endpoint.id)) return;
    const plane = this.#plane;
    plane.keeping.delete('endpoint', endpoint.id);
    plane.objects.remove(endpoint.id);
    dropCapability(plane, endpoint.cap, endpoint.owner);
    if (endpoint.binding !== null) plane.names.drop(endpoint.binding);
    if (!told) endpoint.domain.event('endpoint.ended', { endpoint: endpoint.id, reason });
  }

  /** The domain has ended: its endpoints too, and its side of every connection. */
  endDomain(domain: Domain): void {
    for (const endpoint of [...this.#endpoints.values()]) {
      if (endpoint.domain === domain) this.end(endpoint, 'its domain ended', true);
    }
    for (const connection of [...this.#connections.values()]) {
      const { connector, endpoint } = connection;
      if (connector !== domain && endpoint.domain !== domain) continue;
      if (!connection.closed) this.#close(connection, domain, 'the peer ended');
      if (endpoint.domain === domain) this.#forget(connection.id);
    }
  }

  /** Put an endpoint of the daemon before back, after domains and capabilities; false when those are gone. */
  restore(id: number, { owner, cap: capId, ...rest }: SavedEndpoint): boolean {
    const domain = this.#plane.domains.get(owner);
    const cap = this.#plane.caps.get(capId);
    if (domain === undefined || cap === undefined) return false;
    this.#add({ id, ...rest, domain, cap });
    return true;
  }

  /** The same of a connection, after the endpoints. */
  restoreConnection(id: number, saved: SavedConnection): boolean {
    const endpoint = this.#endpoints.get(saved.endpoint);
    const connector = this.#plane.domains.get(saved.connector);
    if (endpoint === undefined || connector === undefined) return false;
    const { accepted, closed } = saved;
    this.#connections.set(id, { id, endpoint, connector, accepted, closed });
    if (!accepted) endpoint.waiting++;
    if (!closed) endpoint.open++;
    this.reserveIds(id + 1);
    return true;
  }

  /** Ids of connections below were given out by the daemon before. */
  reserveIds(next: number): void {
    this.#nextConnection = Math.max(this.#nextConnection, next);
    this.#reserved = this.#nextConnection;
  }

  /** After the names are back: an endpoint is made with its name, so one without is half of what was not finished. */
  adopt(): void {
    for (const endpoint of [...this.#endpoints.values()]) {
      if (endpoint.binding === null) this.end(endpoint, 'it was not finished', true);
    }
  }

  /** Endpoint `id`, for the names of the daemon before. */
  get(id: number): Endpoint | undefined {
    return this.#endpoints.get(id);
  }

  #add(made: ConstructorParameters<typeof Endpoint>[0]): Endpoint {
    const endpoint = this.#plane.objects.add(new Endpoint(made));
    this.#endpoints.set(endpoint.id, endpoint);
    this.#plane.caps.onRemove(endpoint.cap, () =>
      this.end(endpoint, 'its capability is gone', endpoint.domain.closed),
    );
    return endpoint;
  }

  #open(endpoint: Endpoint, connector: Domain): Connection {
    const id = this.#nextConnection++;
    const connection = { id, endpoint, connector, accepted: false, closed: false };
    this.#connections.set(id, connection);
    endpoint.waiting++;
    endpoint.open++;
    this.#note(connection);
    return connection;
  }

  /** Note it for the next daemon. One that is closed is over once the listener has taken it from its backlog. */
  #note({ id, endpoint, connector, accepted, closed }: Connection): void {
    const { keeping } = this.#plane;
    if (accepted && closed) {
      this.#forget(id);
      return;
    }
    if (id >= this.#reserved) {
      this.#reserved = id + LIMITS.idsReserved;
      keeping.put('ids', 'connections', { next: this.#reserved });
    }
    const saved = { endpoint: endpoint.id, connector: connector.id, accepted, closed };
    keeping.put('connection', id, saved satisfies SavedConnection);
  }

  #forget(id: number): void {
    this.#connections.delete(id);
    this.#plane.keeping.delete('connection', id);
  }

  #close(connection: Connection, by: Domain, reason: string): void {
    const { id, endpoint, connector } = connection;
    connection.closed = true;
    endpoint.open--;
    this.#note(connection);
    for (const side of [connector, endpoint.domain]) {
      if (side !== by) side.event('endpoint.closed', { connection: id, reason });
    }
  }
}

/** As its record has it. */
function savedEndpoint(endpoint: Endpoint): SavedEndpoint {
  const { createdMs, name, owner, cap, ringBytes, backlog } = endpoint;
  return { createdMs, name, owner, cap: cap.id, ringBytes, backlog };
}

const absent = (id: number): ArrakisError =>
  new ArrakisError('ARK_NOT_FOUND', `there is no connection ${id} of this domain`, {
    hint: 'it may have ended',
  });
