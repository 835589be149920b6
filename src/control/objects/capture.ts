/**
 * Capture: the recording of one VNIC. The daemon only introduces: the domain that owns the VNIC writes pcapng into
 * the descriptor that the other one gave. It ends with the VNIC, with its starter, or by `capture.stop`.
 */
import fs from 'node:fs';
import { isatty } from 'node:tty';
import { ArrakisError } from '../../base/errors.ts';
import { callerOf, handler } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import type { ObjectInfo } from '../protocol.ts';
import type { Domain } from './domain.ts';
import type { ControlObject, ObjectTable } from './table.ts';
import { findVnic, type Vnic } from './vnic.ts';

const SNAPLEN_DEFAULT = 65535;
const O_ACCMODE = 3;

class Capture implements ControlObject {
  readonly kind = 'capture';
  readonly id: number;
  readonly createdMs: number;
  readonly owner: number;
  readonly name: string;
  readonly starter: Domain;
  readonly vnic: Vnic;

  constructor(birth: { id: number; createdMs: number }, starter: Domain, vnic: Vnic) {
    this.id = birth.id;
    this.createdMs = birth.createdMs;
    this.owner = starter.id;
    this.name = `capture of ${vnic.name}`;
    this.starter = starter;
    this.vnic = vnic;
  }

  detail(): ObjectInfo['detail'] {
    return { vnic: this.vnic.id };
  }
}

export class CaptureTable {
  readonly #objects: ObjectTable;
  readonly #byVnic = new Map<Vnic, Capture>();

  constructor(objects: ObjectTable) {
    this.#objects = objects;
  }

  on(vnic: Vnic): Capture | undefined {
    return this.#byVnic.get(vnic);
  }

  /** Register the recording of `vnic`, of which there is at most one; returns its id. */
  add(starter: Domain, vnic: Vnic): number {
    const capture = this.#objects.add(new Capture(this.#objects.birth(), starter, vnic));
    this.#byVnic.set(vnic, capture);
    return capture.id;
  }

  /** The VNIC stops: so does its recording, without a word, as the domain knows. */
  endOn(vnic: Vnic): void {
    const capture = this.#byVnic.get(vnic);
    if (capture === undefined) return;
    this.#byVnic.delete(vnic);
    this.#objects.remove(capture.id);
  }

  /** Stop everything that `starter` records. */
  endOf(starter: Domain): void {
    for (const capture of [...this.#byVnic.values()]) {
      if (capture.starter === starter) this.stop(capture.vnic);
    }
  }

  stop(vnic: Vnic): void {
    this.endOn(vnic);
    vnic.opener.event('capture.stop', { vnic: vnic.id });
  }
}

/**
 * Refuses what a stream of bytes cannot be written to, and what gives the application more than that: what can be read
 * as well, and a terminal (which takes ioctls besides). The kernel's fdinfo tells how it was opened (proc(5)).
 */
function requireSink(fd: number): void {
  const flags = /^flags:\s*([0-7]+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  const writeOnly =
    flags !== null && (Number.parseInt(flags[1]!, 8) & O_ACCMODE) === fs.constants.O_WRONLY;
  const stat = writeOnly ? fs.fstatSync(fd) : null;
  const kind = stat === null || stat.isFile() || stat.isFIFO() || stat.isCharacterDevice();
  if (writeOnly && kind && !isatty(fd)) return;
  throw new ArrakisError(
    'ARK_BAD_ARGUMENT',
    writeOnly
      ? 'the descriptor is not a file, pipe or character device, or it is a terminal'
      : 'the descriptor is not open for writing only',
    { hint: 'pass a file, or the writing end of a pipe: the application gets it' },
  );
}

export const start = handler(
  'capture.start',
  (plane, call, { vnic: id, snaplen }) => {
    const domain = callerOf(call);
    const vnic = findVnic(plane, domain, id, 'capture');
    requireSink(call.fds[0]!);
    if (vnic.state !== 'open' || vnic.foreign) {
      throw new ArrakisError(
        'ARK_GONE',
        `VNIC ${vnic.name} is not open in an application of ours`,
        {
          hint: vnic.foreign ? 'capture in the program that uses it' : 'open it first',
        },
      );
    }
    const running = plane.captures.on(vnic);
    if (running !== undefined) {
      throw new ArrakisError(
        'ARK_IN_USE',
        `VNIC ${vnic.name} is being captured by ${running.starter.name}`,
        { hint: 'one capture of a VNIC at a time' },
      );
    }
    return { domain, vnic, snaplen: snaplen ?? SNAPLEN_DEFAULT };
  },
  (plane, { domain, vnic, snaplen }, call) => {
    const capture = plane.captures.add(domain, vnic);
    vnic.opener.event('capture', { vnic: vnic.id, snaplen: Math.min(snaplen, LIMITS.snaplenMax) }, [
      call.fds[0]!,
    ]);
    return { reply: { capture } };
  },
);

export const stop = handler(
  'capture.stop',
  (plane, call, { vnic: id }) => {
    const domain = callerOf(call);
    const vnic = findVnic(plane, domain, id, 'capture');
    if (plane.captures.on(vnic) === undefined) {
      throw new ArrakisError('ARK_NOT_FOUND', `VNIC ${vnic.name} is not being captured`);
    }
    return { vnic };
  },
  (plane, { vnic }) => {
    plane.captures.stop(vnic);
    return { reply: {} };
  },
);
