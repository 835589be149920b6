/**
 * The switch of one interface: maps, the steer program at the interface, ids and counters. Nothing is pinned: all
 * of it is descriptors, and goes with whoever has them; the interface is then the kernel's alone again.
 */
import type { Mac } from '../../base/address.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { DIRECTIONS, type Direction, type RateLimit } from '../../device/rate.ts';
import type { Assembler } from '../../ebpf/assembler.ts';
import {
  attachXdp,
  createMap,
  detachLink,
  loadXdpProgram,
  mapDelete,
  mapLookup,
  mapUpdate,
  percpuClear,
  percpuSums,
  programName,
  u32,
  type XdpMode,
} from '../../ffi/bpf.ts';
import { closeAll, closeFd } from '../../ffi/fd.ts';
import { type Link, linkByIndex } from '../../ffi/netlink/index.ts';
import { xdpFeatures } from '../../ffi/xdp-features.ts';
import type { Filter } from '../../filter/boxes.ts';
import { FLOW_KEYS_MAX, type FlowOwner, FlowTable } from './flows.ts';
import * as programs from './programs/index.ts';
import { CompiledRules } from './rules.ts';

/** Descriptors that a switch saves: the link and the maps. */
export const SWITCH_FDS = 6;

export interface SavedSwitch {
  readonly mode: XdpMode;
  readonly guardMode: XdpMode;
}

export class XdpSwitch {
  /** How the steer program is attached. */
  readonly mode: XdpMode;
  /** How a guard program has to be attached so that it can send to the interface. */
  readonly guardMode: XdpMode;
  readonly maps: programs.SwitchMaps;
  readonly rules: CompiledRules;
  readonly #flows: FlowTable;
  readonly #link: number;
  readonly #ids = new Set<number>();

  private constructor(saved: SavedSwitch, maps: programs.SwitchMaps, link: number, mac: Mac) {
    this.mode = saved.mode;
    this.guardMode = saved.guardMode;
    this.maps = maps;
    this.#flows = new FlowTable(maps.flows);
    this.#link = link;
    this.rules = new CompiledRules(maps, mac, link);
  }

  /** Put the switch on `link`. ARK_IN_USE when the interface has an XDP program. */
  static open(link: Link): XdpSwitch {
    const maps = createMaps();
    try {
      const steer = loadProgram('ark_steer', programs.steerProgram(maps, link.mac));
      let attached: ReturnType<typeof attachSteer>;
      try {
        attached = attachSteer(steer, link);
      } finally {
        closeFd(steer);
      }
      try {
        const { mode } = attached;
        mapUpdate(maps.veths, u32(programs.UPLINK), u32(link.index));
        const takesNative = xdpFeatures(link.index)?.redirectTarget ?? true;
        const guardMode = mode === 'native' && takesNative ? 'native' : 'skb';
        return new XdpSwitch({ mode, guardMode }, maps, attached.link, link.mac);
      } catch (error) {
        closeFd(attached.link);
        throw error;
      }
    } catch (error) {
      closeAll(Object.values(maps));
      throw error;
    }
  }

  /** Go on with a switch that another process saved; owns its descriptors. */
  static adopt(saved: SavedSwitch, mac: Mac, fds: readonly number[]): XdpSwitch {
    const [link, flows, xsks, veths, counts, limits] = fds as [number, ...number[]];
    const maps = { flows, xsks, veths, counts, limits } as programs.SwitchMaps;
    return new XdpSwitch(saved, maps, link, mac);
  }

  /** For `adopt`. The descriptors stay this object's. */
  save(): { state: SavedSwitch; fds: number[] } {
    const { mode, guardMode } = this;
    const { flows, xsks, veths, counts, limits } = this.maps;
    return { state: { mode, guardMode }, fds: [this.#link, flows, xsks, veths, counts, limits] };
  }

  /** Take `id`, which a VNIC of the switch that was adopted has. False when another has it. */
  adoptId(id: number): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    return true;
  }

  /** A free id, with its counters at zero, no limits and nothing owed under those of its last VNIC. Give it back by `releaseId`. */
  takeId(): number {
    for (let id = 0; id < programs.VNICS_MAX; id++) {
      if (this.#ids.has(id)) continue;
      for (let i = 0; i < programs.COUNTS_PER_VNIC; i++) {
        percpuClear(this.maps.counts, id * programs.COUNTS_PER_VNIC + i, programs.COUNT_WORDS);
      }
      for (const direction of DIRECTIONS) this.#clearLimits(id, direction);
      this.#ids.add(id);
      return id;
    }
    throw new ArrakisError('ARK_LIMIT', `the interface has ${programs.VNICS_MAX} VNICs`, {
      hint: 'close one first',
    });
  }

  releaseId(id: number): void {
    this.#ids.delete(id);
  }

  /** Deliver what is for queue `pair` of VNIC `id` to this socket, and by way of this veth when it is switched. */
  connect(id: number, pair: number, socket: number, veth: number | null): void {
    const slot = u32(programs.slotOf(id, pair));
    mapUpdate(this.maps.xsks, slot, u32(socket));
    if (veth !== null) mapUpdate(this.maps.veths, slot, u32(veth));
  }

  disconnect(id: number, pair: number): void {
    const slot = u32(programs.slotOf(id, pair));
    // Entries go by themselves with their socket or interface.
    mapDelete(this.maps.xsks, slot);
    mapDelete(this.maps.veths, slot);
  }

  /** Load `program` and attach it to an interface; the link's descriptor is the caller's. */
  attach(name: string, program: Assembler, ifIndex: number, mode: XdpMode): number {
    const fd = loadProgram(name, program);
    try {
      return attachXdp(fd, ifIndex, mode);
    } finally {
      closeFd(fd);
    }
  }

  /**
   * What `owner` receives, and sends: null for the mirror of that. A packet that both the old and the new filters let
   * through is let through all the time. ARK_IN_USE, ARK_LIMIT; on failure nothing has changed.
   */
  setFilters(
    owner: FlowOwner,
    receive: readonly Filter[],
    transmit: readonly Filter[] | null,
  ): void {
    const plan = this.#flows.plan(owner, receive);
    this.rules.set(plan, transmit, (exchange) => this.#flows.set(plan, exchange));
  }

  /** Go on with filters that the daemon before had set. Call `settle` after all of them. */
  adoptFilters(
    owner: FlowOwner,
    receive: readonly Filter[],
    transmit: readonly Filter[] | null,
  ): void {
    const plan = this.#flows.plan(owner, receive);
    this.#flows.adopt(plan);
    this.rules.adopt(plan, transmit);
  }

  /** Flows and programs are those of the VNICs that are there, whatever was before. */
  settle(): void {
    this.#flows.settle();
    this.rules.reload();
  }

  /** VNIC `id` receives nothing any more. */
  removeFilters(id: number): void {
    this.#flows.remove(id);
    this.rules.remove(id);
  }

  /** Counts of VNIC `id`: [packets, bytes] per drop reason, then received, then sent. */
  counts(id: number): number[][] {
    const first = id * programs.COUNTS_PER_VNIC;
    return percpuSums(this.maps.counts, first, programs.COUNT_TX + 1, programs.COUNT_WORDS);
  }

  #clearLimits(id: number, direction: Direction): void {
    const none = Buffer.alloc(programs.LIMIT_BYTES);
    mapUpdate(this.maps.limits, u32(programs.limitOf(id, direction)), none);
    for (let pair = 0; pair < programs.QUEUES_PER_VNIC_MAX; pair++) {
      const key = programs.queueLimitOf(programs.slotOf(id, pair), direction);
      mapUpdate(this.maps.limits, u32(key), none);
    }
  }

  /** Limit what VNIC `id`, or queue `pair` of it, sends or receives, from the next frame on. */
  setLimit(id: number, pair: number | null, direction: Direction, limit: RateLimit): void {
    const { limitOf, queueLimitOf, slotOf } = programs;
    const key = u32(
      pair === null ? limitOf(id, direction) : queueLimitOf(slotOf(id, pair), direction),
    );
    const entry = Buffer.alloc(programs.LIMIT_BYTES);
    mapLookup(this.maps.limits, key, entry);
    programs.writeLimit(entry, limit);
    mapUpdate(this.maps.limits, key, entry);
  }

  /** Take the program off the interface. Call once, after every VNIC is gone. */
  close(): void {
    // The keeper has a copy: the interface is to be free now.
    detachLink(this.#link);
    closeFd(this.#link);
    closeAll(Object.values(this.maps));
  }
}

function createMaps(): programs.SwitchMaps {
  const made: number[] = [];
  const make = (type: Parameters<typeof createMap>[0]['type'], sizes: [number, number, number]) => {
    const [keyBytes, valueBytes, entriesMax] = sizes;
    const fd = createMap({ type, name: `ark_${type}`, keyBytes, valueBytes, entriesMax });
    made.push(fd);
    return fd;
  };
  try {
    const { FLOW_KEY_BYTES, FLOW_VALUE_BYTES, VNICS_MAX, COUNTS_PER_VNIC, COUNT_WORDS } = programs;
    const { UPLINK } = programs;
    return {
      flows: make('hash', [FLOW_KEY_BYTES, FLOW_VALUE_BYTES, FLOW_KEYS_MAX]),
      xsks: make('xskmap', [4, 4, UPLINK]),
      veths: make('devmap', [4, 4, UPLINK + 1]),
      counts: make('percpuArray', [4, COUNT_WORDS * 8, VNICS_MAX * COUNTS_PER_VNIC]),
      limits: make('array', [4, programs.LIMIT_BYTES, programs.LIMITS_MAX]),
    };
  } catch (error) {
    closeAll(made);
    throw error;
  }
}

const loadProgram = (name: string, program: Assembler): number =>
  loadXdpProgram(name, program.encode());

/** Native when the driver can, else in the generic hook. */
function attachSteer(program: number, link: Link): { link: number; mode: XdpMode } {
  refuseOtherProgram(link);
  try {
    return { link: attachXdp(program, link.index, 'native'), mode: 'native' };
  } catch (error) {
    // Somebody else may have come between.
    refuseOtherProgram(linkByIndex(link.index) ?? link);
    if (!isErrno(error, 'EOPNOTSUPP', 'EINVAL', 'ENOTSUPP', 'ERANGE', 'ENOMEM', 'E2BIG')) {
      throw error;
    }
    return { link: attachXdp(program, link.index, 'skb'), mode: 'skb' };
  }
}

function refuseOtherProgram(link: Link): void {
  if (link.xdpProgId === null) return;
  const name = programName(link.xdpProgId) || 'without a name';
  const text = `${link.name} already has an XDP program: ${name} (id ${link.xdpProgId})`;
  throw new ArrakisError('ARK_IN_USE', text, {
    hint: `end its owner, or take it off: ip link set dev ${link.name} xdp off`,
  });
}
