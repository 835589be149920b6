/**
 * The shape of an operation: `decode` checks rights, limits, arguments and existence and changes nothing; `invoke`
 * acts on the plan that decode made and undoes itself when it fails half-way. (seL4's decode and invoke.)
 */
import { ArrakisError } from '../base/errors.ts';
import type { Domain } from './objects/domain.ts';
import type { ControlPlane } from './plane.ts';
import type { ArgsOf, Operation, ReplyOf } from './protocol.ts';

/** The connection that a request came over, as far as handlers see it. */
export interface Peer {
  readonly uid: number;
  readonly gid: number | null;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  /** Absolute path of its executable; null: not known. */
  readonly exe: string | null;
  readonly pid: number;
  /** Null until hello. */
  readonly domain: Domain | null;
  /** The connection speaks for `domain` from now on. */
  adopt(domain: Domain): void;
}

export interface Call {
  readonly peer: Peer;
  /** Descriptors of the request, owned by the caller of decode and invoke, who closes them afterwards. */
  readonly fds: readonly number[];
}

export interface Outcome<O extends Operation> {
  readonly reply: ReplyOf<O>;
  /** Sent with the reply; they stay owned by whoever made them. */
  readonly fds?: readonly number[];
  /** Runs after the reply was handed to the socket. */
  readonly sent?: () => void;
}

export interface Handler<O extends Operation, Plan> {
  decode(plane: ControlPlane, call: Call, args: ArgsOf<O>): Plan;
  invoke(plane: ControlPlane, plan: Plan, call: Call): Outcome<O> | Promise<Outcome<O>>;
}

/** Ties the plan's type of decode to that of invoke; outside, a handler is known by its operation only. */
export function handler<O extends Operation, Plan>(
  _op: O,
  decode: Handler<O, Plan>['decode'],
  invoke: Handler<O, Plan>['invoke'],
): Handler<O, unknown> {
  return { decode, invoke: invoke as Handler<O, unknown>['invoke'] };
}

/** The domain that calls; the dispatcher has refused callers without one. */
export function callerOf(call: Call): Domain {
  const { domain } = call.peer;
  if (domain === null) throw new ArrakisError('ARK_NOT_PERMITTED', 'say hello first');
  return domain;
}
