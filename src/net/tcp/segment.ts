/** The segment that is being processed, as the header says it. One for a whole stack, overwritten by the next. */
import * as wire from '../../wire/tcp.ts';
import { FLOW_WORDS } from '../ip-output.ts';

export class Segment {
  frame = 0;
  /** Where the header starts, and the payload. */
  headerAt = 0;
  at = 0;
  /** Payload bytes. */
  length = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  /** As sent, without the scale. */
  window = 0;
  localPort = 0;
  remotePort = 0;
  readonly options = new wire.TcpOptions();
  /** Our address, then the sender's. */
  readonly flow = new Int32Array(FLOW_WORDS);

  /** Sequence numbers that it takes: bytes, SYN and FIN (SEG.LEN of RFC 9293). */
  get space(): number {
    const { flags } = this;
    return this.length + ((flags & wire.SYN) !== 0 ? 1 : 0) + ((flags & wire.FIN) !== 0 ? 1 : 0);
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  get ports(): number {
    return wire.portPair(this.localPort, this.remotePort);
  }

  /** Read the checked header of `headerLength` bytes at `at` in a segment of `length` bytes. False: bad options. */
  read(view: DataView, frame: number, at: number, headerLength: number, length: number): boolean {
    this.frame = frame;
    this.headerAt = at;
    this.at = at + headerLength;
    this.length = length - headerLength;
    this.seq = wire.seq(view, at);
    this.ack = wire.ack(view, at);
    this.flags = wire.flags(view, at);
    this.window = wire.window(view, at);
    this.localPort = wire.dstPort(view, at);
    this.remotePort = wire.srcPort(view, at);
    return wire.parseOptions(view, at, this.options);
  }
}
