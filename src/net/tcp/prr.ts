/**
 * Proportional rate reduction (RFC 6937): in recovery the window shrinks to the threshold in step with what arrives,
 * instead of at once. Where more was lost than the threshold allows for, it grows back as in slow start (PRR-SSRB) while
 * acknowledgements advance, and else sends only what has left the network (PRR-CRB).
 */
export class Prr {
  #delivered = 0;
  #out = 0;
  #flight = 1;

  /** Recovery begins with `flight` bytes outstanding. */
  start(flight: number): void {
    this.#delivered = this.#out = 0;
    this.#flight = Math.max(1, flight);
  }

  onSent(bytes: number): void {
    this.#out += bytes;
  }

  /**
   * The window after an acknowledgement by which `delivered` more bytes have arrived. `isGood`: it advanced, and nothing
   * more was found lost.
   */
  window(pipe: number, threshold: number, delivered: number, mss: number, isGood: boolean): number {
    this.#delivered += delivered;
    let room: number;
    if (pipe > threshold) {
      room = Math.ceil((this.#delivered * threshold) / this.#flight) - this.#out;
    } else {
      let limit = Math.max(this.#delivered - this.#out, delivered);
      if (isGood) limit += mss;
      room = Math.min(threshold - pipe, limit);
    }
    // The first retransmission goes at once.
    return pipe + Math.max(room, this.#out === 0 ? mss : 0);
  }
}
