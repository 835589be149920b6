/**
 * Domain: a protection domain, alive as long as its control channel.
 *
 * - A connection to the socket becomes a domain by `hello`; its user is the kernel's word for who connected.
 * - A prepared domain comes with a channel and VNICs from a privileged caller. It has those and nothing else, even
 *   when its holder runs as root: the channel is the authority.
 */
import { ArrakisError } from '../../base/errors.ts';
import { closeFd } from '../../ffi/fd.ts';
import { passCredentials, passRights, SOCK_SEQPACKET, socketPair } from '../../ffi/unix.ts';
import { giveInitial } from '../caps/initial.ts';
import { CapNotices, type NoticeSink } from '../caps/notices.ts';
import { dropHolder } from '../caps/withdraw.ts';
import { callerOf, handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import { type EventName, type EventOf, type ObjectInfo, PROTOCOL_VERSION } from '../protocol.ts';
import type { ControlObject } from './table.ts';
import { planVnic, removeVnic, reserveVnic, type VnicPlan, vnicsOf } from './vnic.ts';

export interface DomainOptions {
  name: string;
  uid: number;
  gid: number | null;
  /** Supplementary groups, and the path of the executable when it is known, for the policy. Default: none. */
  groups?: readonly number[];
  exe?: string | null;
  pid: number;
  privileged: boolean;
  prepared: boolean;
  /** Of a domain of the daemon before. */
  given?: readonly number[];
  cpus?: readonly number[];
  send: (message: object, fds: readonly number[]) => void;
}

export type SavedDomain = Omit<DomainOptions, 'send'> & { readonly createdMs: number };

export class Domain implements ControlObject, NoticeSink {
  readonly kind = 'domain';
  readonly id: number;
  readonly owner: number;
  readonly createdMs: number;
  readonly uid: number;
  readonly gid: number | null;
  readonly groups: readonly number[];
  readonly exe: string | null;
  readonly privileged: boolean;
  readonly prepared: boolean;
  name: string;
  pid: number;
  closed = false;
  requests = 0;
  refused = 0;
  /** Ids of the capabilities that it has by the policy. Some may have gone meanwhile. */
  readonly given: Set<number>;
  /** Processors that it was placed on, in the order in which its threads take them; empty: anywhere. */
  cpus: readonly number[];
  /** What it is told of its capabilities. */
  readonly notices = new CapNotices(this);
  #send: DomainOptions['send'];
  #waiting: () => number = () => 0;

  constructor(birth: { id: number; createdMs: number }, options: DomainOptions) {
    this.id = birth.id;
    this.owner = birth.id;
    this.createdMs = birth.createdMs;
    this.name = options.name;
    this.uid = options.uid;
    this.gid = options.gid;
    this.groups = options.groups ?? [];
    this.exe = options.exe ?? null;
    this.given = new Set(options.given);
    this.cpus = options.cpus ?? [];
    this.pid = options.pid;
    this.privileged = options.privileged;
    this.prepared = options.prepared;
    this.#send = options.send;
  }

  /** Where its events go; a prepared domain learns it when its channel stands. */
  set sender(send: DomainOptions['send']) {
    this.#send = send;
  }

  /** How many messages wait for it to read. */
  set backlog(waiting: () => number) {
    this.#waiting = waiting;
  }

  get busy(): boolean {
    return this.#waiting() > 0;
  }

  /** Tell the domain something. The descriptors stay the caller's. */
  event<E extends EventName>(event: E, fields: EventOf<E>, fds: readonly number[] = []): void {
    if (!this.closed) this.#send({ event, ...fields }, fds);
  }

  /** For the next daemon, which goes on with it. */
  save(): SavedDomain {
    const { name, uid, gid, groups, exe, pid, privileged, prepared, cpus, createdMs } = this;
    const given = [...this.given];
    return { name, uid, gid, groups, exe, pid, privileged, prepared, given, cpus, createdMs };
  }

  detail(): ObjectInfo['detail'] {
    const { uid, gid, pid, prepared, privileged, requests, refused } = this;
    return { uid, gid, pid, prepared, privileged, cpus: [...this.cpus], requests, refused };
  }
}

export const hello = handler(
  'hello',
  (plane, { peer }, args) => {
    if (args.protocol !== PROTOCOL_VERSION) {
      throw new ArrakisError(
        'ARK_UNSUPPORTED',
        `this daemon speaks protocol ${PROTOCOL_VERSION}, not ${args.protocol}`,
        { hint: 'restart the daemon of the version that the application uses' },
      );
    }
    if (peer.domain !== null && !peer.domain.prepared) {
      throw new ArrakisError('ARK_NOT_PERMITTED', 'this connection has said hello already');
    }
    return { name: args.name ?? `pid-${peer.pid}`, privileged: plane.isPrivileged(peer.uid) };
  },
  (plane, plan, { peer }) => {
    let { domain } = peer;
    if (domain === null) {
      domain = plane.addDomain({
        ...plan,
        uid: peer.uid,
        gid: peer.gid,
        groups: peer.groups,
        exe: peer.exe,
        pid: peer.pid,
        prepared: false,
      });
      peer.adopt(domain);
      giveInitial(plane, domain);
    } else {
      domain.pid = peer.pid;
      plane.keeping.put('domain', domain.id, domain.save());
    }
    const { version, pid } = plane;
    const prepared = vnicsOf(plane, domain).map((vnic) => vnic.name);
    const { id, uid, privileged } = domain;
    return {
      reply: { domain: id, protocol: PROTOCOL_VERSION, version, pid, uid, privileged, prepared },
    };
  },
);

export const prepare = handler(
  'domain.prepare',
  (plane, call, args) => {
    callerOf(call);
    if (args.uid === plane.nicUid) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `uid ${args.uid} is that of the software NIC`, {
        hint: 'an application of the same user could stop it; run it as another',
      });
    }
    // Each spec is planned with those before it, so that two of one request cannot overlap either.
    const plans: VnicPlan[] = [];
    for (const spec of args.vnics) plans.push(planVnic(plane, spec, null, plans));
    const { name, uid, gid = null, program: exe = null } = args;
    return { identity: { name, uid, gid, exe }, plans };
  },
  (plane, { identity, plans }) => {
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    const domain = plane.addDomain({ ...identity, pid: 0, privileged: false, prepared: true });
    let adopted = false;
    try {
      passCredentials(ours);
      passRights(ours, false);
      const vnics = plans.map((plan) => reserveVnic(plane, domain, plan, { prepared: true }));
      giveInitial(plane, domain);
      adopted = true;
      plane.host.adoptChannel(ours, domain);
      return {
        reply: { domain: domain.id, vnics: vnics.map((vnic) => vnic.name) },
        fds: [theirs],
        sent: () => closeFd(theirs),
      };
    } catch (error) {
      closeFd(theirs);
      if (!adopted) closeFd(ours);
      void closeDomain(plane, domain);
      throw error;
    }
  },
);

/** Take back everything that a domain has, because its channel ended. */
export async function closeDomain(plane: ControlPlane, domain: Domain): Promise<void> {
  if (domain.closed) return;
  domain.closed = true;
  plane.keeping.delete('domain', domain.id);
  plane.captures.endOf(domain);
  const removals = vnicsOf(plane, domain).map((vnic) =>
    removeVnic(plane, vnic, 'its domain ended'),
  );
  dropHolder(plane, domain);
  plane.endpoints.endDomain(domain);
  plane.names.endDomain(domain);
  plane.objects.remove(domain.id);
  plane.domains.delete(domain.id);
  await Promise.all(removals);
}
