/**
 * The switch of one interface: maps, the steer program at the interface, ids and counters. Nothing is pinned: all
 * of it is descriptors of this process and goes with it; the interface is then the kernel's alone again.
 */
import { ArrakisError, isErrno } from '../../base/errors.ts';
import type { Assembler } from '../../ebpf/assembler.ts';
import {
  attachXdp,
  createMap,
  loadXdpProgram,
  mapDelete,
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
import { FLOW_KEYS_MAX, FlowTable } from './flows.ts';
import * as programs from './programs/index.ts';

export class XdpSwitch {
  /** How the steer program is attached. */
  readonly mode: XdpMode;
  /** How a guard program has to be attached so that it can send to the interface. */
  readonly guardMode: XdpMode;
  readonly maps: programs.SwitchMaps;
  readonly flows: FlowTable;
  readonly #link: number;
  readonly #ids = new Set<number>();

  /** Put the switch on `link`. ARK_IN_USE when the interface has an XDP program. */
  constructor(link: Link) {
    this.maps = createMaps();
    try {
      this.flows = new FlowTable(this.maps.flows);
      const steer = loadProgram('ark_steer', programs.steerProgram(this.maps, link.mac));
      try {
        ({ link: this.#link, mode: this.mode } = attachSteer(steer, link));
      } finally {
        closeFd(steer);
      }
      try {
        mapUpdate(this.maps.veths, u32(programs.UPLINK), u32(link.index));
        const takesNative = xdpFeatures(link.index)?.redirectTarget ?? true;
        this.guardMode = this.mode === 'native' && takesNative ? 'native' : 'skb';
      } catch (error) {
        closeFd(this.#link);
        throw error;
      }
    } catch (error) {
      closeAll(Object.values(this.maps));
      throw error;
    }
  }

  /** A free id, with its counters at zero. Give it back by `releaseId`. */
  takeId(): number {
    for (let id = 0; id < programs.VNICS_MAX; id++) {
      if (this.#ids.has(id)) continue;
      for (let i = 0; i < programs.COUNTS_PER_VNIC; i++) {
        percpuClear(this.maps.counts, id * programs.COUNTS_PER_VNIC + i, programs.COUNT_WORDS);
      }
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

  /** Counts of VNIC `id`: [packets, bytes] per drop reason, then received, then sent. */
  counts(id: number): number[][] {
    const first = id * programs.COUNTS_PER_VNIC;
    return percpuSums(this.maps.counts, first, programs.COUNT_TX + 1, programs.COUNT_WORDS);
  }

  /** Take the program off the interface. Call once, after every VNIC is gone. */
  close(): void {
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
