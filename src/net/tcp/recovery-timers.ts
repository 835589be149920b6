/** The three timers of the sender's half, of which the connection sees the first: retransmission, probe, reordering. */

/** Bits of `running`. */
export const WAIT = { rto: 1, probe: 2, reorder: 4 } as const satisfies Record<string, number>;
export type Wait = (typeof WAIT)[keyof typeof WAIT];

export class Timers {
  running = 0;
  #rtoUs = 0;
  #probeUs = 0;
  #reorderUs = 0;

  /** Set the timer to `us`, or stop it. */
  arm(timer: Wait, us: number, isOn: boolean): void {
    this.running = isOn ? this.running | timer : this.running & ~timer;
    if (timer === WAIT.rto) this.#rtoUs = us;
    else if (timer === WAIT.probe) this.#probeUs = us;
    else this.#reorderUs = us;
  }

  /** The probe's, or when the retransmission timer would be earlier, in its place. */
  armProbe(us: number, isOn: boolean): void {
    const isLate = (this.running & WAIT.rto) !== 0 && ((us - this.#rtoUs) | 0) > 0;
    this.arm(WAIT.probe, isLate ? this.#rtoUs : us, isOn);
  }

  stop(): void {
    this.running = 0;
  }

  /** True once when the timer runs and its time has come. */
  isDue(timer: Wait, nowUs: number): boolean {
    if ((this.running & timer) === 0 || ((this.#timeOf(timer) - nowUs) | 0) > 0) return false;
    this.running &= ~timer;
    return true;
  }

  /** The earliest of those that run. */
  get firstUs(): number {
    const { running } = this;
    let us =
      running & WAIT.rto ? this.#rtoUs : running & WAIT.probe ? this.#probeUs : this.#reorderUs;
    if (running & WAIT.probe && ((this.#probeUs - us) | 0) < 0) us = this.#probeUs;
    if (running & WAIT.reorder && ((this.#reorderUs - us) | 0) < 0) us = this.#reorderUs;
    return us;
  }

  #timeOf(timer: Wait): number {
    return timer === WAIT.rto
      ? this.#rtoUs
      : timer === WAIT.probe
        ? this.#probeUs
        : this.#reorderUs;
  }
}
