/**
 * Filters that are compiled into the programs of one interface, and the exchange of those programs while packets run.
 *
 * - All programs of a change are loaded first. What the verifier refuses, or is too large, changes nothing.
 * - Each link then gets its program in one step (BPF_LINK_UPDATE): a packet meets the old one or the new one.
 * - When nothing is compiled, before and after, no program is touched.
 */
import type { Mac } from '../../base/address.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import type { Assembler } from '../../ebpf/assembler.ts';
import { loadXdpProgram, updateLink, VerifierError } from '../../ffi/bpf.ts';
import { closeAll } from '../../ffi/fd.ts';
import { type Filter, mirrorBoxes } from '../../filter/boxes.ts';
import type { FlowPlan } from './flows.ts';
import {
  guardProgram,
  MIRRORS,
  type Receiver,
  type Sender,
  type SwitchMaps,
  steerProgram,
} from './programs/index.ts';

/** Boxes compiled for all VNICs of an interface: every packet that no flow takes is compared with each. */
export const COMPILED_BOXES_MAX = 512;

/** The guards of one VNIC: links to exchange their programs on, one a queue pair, in order. */
export interface Guards {
  readonly links: readonly number[];
  readonly frameLengthMax: number;
}

/** A program in the place of another, soon. */
interface Exchange {
  readonly link: number;
  readonly name: string;
  readonly program: Assembler;
}

export class CompiledRules {
  readonly #maps: SwitchMaps;
  readonly #mac: Mac;
  readonly #steerLink: number;
  readonly #guards = new Map<number, Guards>();
  readonly #receivers = new Map<number, Receiver>();
  readonly #senders = new Map<number, Sender>();

  /** The maps and `steerLink` stay the caller's. */
  constructor(maps: SwitchMaps, mac: Mac, steerLink: number) {
    this.#maps = maps;
    this.#mac = mac;
    this.#steerLink = steerLink;
  }

  /** The program for the guard of queue `pair` of VNIC `id`, whose rules are not set yet. */
  guard(id: number, pair: number, frameLengthMax: number): Assembler {
    return this.#guard({ id, pair, frameLengthMax }, [...this.#receivers.values()], MIRRORS);
  }

  /** VNIC `id` has these guards, from now until `remove`. */
  addGuards(id: number, guards: Guards): void {
    this.#guards.set(id, guards);
  }

  /**
   * Load what goes with `plan` and the filters to send by (null: the mirror of what is received), then have `commit`
   * called with what puts it in place. ARK_LIMIT when it is too much for a program; then nothing has changed.
   */
  set(
    plan: FlowPlan,
    transmit: readonly Filter[] | null,
    commit: (exchange: () => void) => void,
  ): void {
    const { id } = plan.owner;
    const receiver = receiverOf(plan);
    const sender = senderOf(plan, transmit);
    const receivers = new Map(this.#receivers);
    if (receiver === null) receivers.delete(id);
    else receivers.set(id, receiver);
    const exchanges: Exchange[] = [];
    if (receiver !== null || this.#receivers.has(id)) {
      requireFew(receivers.values());
      exchanges.push(...this.#all(receivers, new Map(this.#senders).set(id, sender)));
    } else if (sender !== MIRRORS || this.#senders.has(id)) {
      exchanges.push(...this.#guardsOf(id, [...receivers.values()], sender));
    }
    exchange(exchanges, commit, () => this.#all(this.#receivers, this.#senders));
    this.#keep(id, receiver, sender);
  }

  /** Note the rules of a VNIC whose programs have them already, as far as they are known. `reload` makes sure. */
  adopt(plan: FlowPlan, transmit: readonly Filter[] | null): void {
    this.#keep(plan.owner.id, receiverOf(plan), senderOf(plan, transmit));
  }

  /** Put every program in place anew. */
  reload(): void {
    exchange(this.#all(this.#receivers, this.#senders), (put) => put(), null);
  }

  /** Forget VNIC `id`; its guards are gone, or about to go. */
  remove(id: number): void {
    this.#guards.delete(id);
    this.#senders.delete(id);
    if (this.#receivers.delete(id)) this.reload();
  }

  #keep(id: number, receiver: Receiver | null, sender: Sender): void {
    if (receiver === null) this.#receivers.delete(id);
    else this.#receivers.set(id, receiver);
    if (sender === MIRRORS) this.#senders.delete(id);
    else this.#senders.set(id, sender);
  }

  #all(receivers: ReadonlyMap<number, Receiver>, senders: ReadonlyMap<number, Sender>): Exchange[] {
    const all = [...receivers.values()];
    const program = steerProgram(this.#maps, this.#mac, all);
    const guards = [...this.#guards.keys()].flatMap((id) =>
      this.#guardsOf(id, all, senders.get(id) ?? MIRRORS),
    );
    return [{ link: this.#steerLink, name: 'ark_steer', program }, ...guards];
  }

  #guardsOf(id: number, receivers: readonly Receiver[], sender: Sender): Exchange[] {
    const guards = this.#guards.get(id);
    if (guards === undefined) return [];
    const { links, frameLengthMax } = guards;
    return links.map((link, pair) => {
      const program = this.#guard({ id, pair, frameLengthMax }, receivers, sender);
      return { link, name: 'ark_guard', program };
    });
  }

  #guard(
    guard: { id: number; pair: number; frameLengthMax: number },
    receivers: readonly Receiver[],
    sender: Sender,
  ): Assembler {
    return guardProgram(this.#maps, { ...guard, mac: this.#mac, sender, receivers });
  }
}

function receiverOf({ owner, compiled, whole }: FlowPlan): Receiver | null {
  if (compiled === null && whole.length === 0) return null;
  return { target: owner, filters: compiled === null ? [] : [compiled], whole };
}

function senderOf({ compiled, whole }: FlowPlan, transmit: readonly Filter[] | null): Sender {
  if (transmit !== null) {
    const filters = transmit.filter(({ boxes }) => boxes.length > 0);
    return { filters, mirrorsFlows: false, whole };
  }
  if (compiled === null && whole.length === 0) return MIRRORS;
  return { filters: compiled === null ? [] : [mirrorBoxes(compiled)], mirrorsFlows: true, whole };
}

function requireFew(receivers: Iterable<Receiver>): void {
  let count = 0;
  for (const { filters, whole } of receivers) {
    count += whole.length;
    for (const { boxes } of filters) count += boxes.length;
  }
  if (count <= COMPILED_BOXES_MAX) return;
  const text = `filters of ${count} boxes in the programs of the interface; ${COMPILED_BOXES_MAX} are the most`;
  throw new ArrakisError('ARK_LIMIT', text, {
    hint: 'filters of one destination address that say nothing of the source need no program',
  });
}

/** Load all, then have `commit` put all in place. `before` gives what was there, for when that fails half-way. */
function exchange(
  exchanges: readonly Exchange[],
  commit: (put: () => void) => void,
  before: (() => Exchange[]) | null,
): void {
  const programs: number[] = [];
  try {
    for (const { name, program } of exchanges) programs.push(load(name, program));
    commit(() => {
      try {
        exchanges.forEach(({ link }, i) => {
          put(link, programs[i]!);
        });
      } catch (error) {
        if (before !== null) exchange(before(), (undo) => undo(), null);
        throw error;
      }
    });
  } finally {
    closeAll(programs);
  }
}

function put(link: number, program: number): void {
  try {
    updateLink(link, program);
  } catch (error) {
    // Its interface is gone, and nothing passes there.
    if (!isErrno(error, 'ENOLINK')) throw error;
  }
}

/** A program that is too large is the filter's fault; any other refusal is a defect of ours. */
function load(name: string, program: Assembler): number {
  try {
    return loadXdpProgram(name, program.encode());
  } catch (error) {
    if (!(error instanceof VerifierError) || !/too (large|complex|many)/.test(error.log))
      throw error;
    throw new ArrakisError(
      'ARK_LIMIT',
      `the filters are too much for the kernel: ${error.message}`,
      {
        hint: 'use fewer or simpler filters',
        cause: error,
      },
    );
  }
}
