/** What the two ends of a system are told, and what the client says. */
import { summarize } from '../stats.ts';

export interface IpcJob {
  /** Payload of every message. */
  readonly bytes: number;
  /** Round trips before those that count. */
  readonly warmup: number;
  readonly roundTrips: number;
  /** Sent one way, after the round trips. */
  readonly messages: number;
}

export interface IpcResult {
  /** Microseconds. */
  readonly rtt: { readonly p50: number; readonly p99: number; readonly p999: number };
  readonly messagesPerSecond: number;
}

/** The job in this process's environment. */
export const readJob = (): IpcJob => JSON.parse(process.env.ARRAKIS_BENCH!) as IpcJob;

/** Ends with the process that started it, and says what it measured. */
export function endWithParent(): void {
  process.stdin.on('end', () => process.exit(1)).resume();
}

export function report(samplesUs: Float64Array, job: IpcJob, seconds: number): void {
  const result: IpcResult = {
    rtt: summarize(samplesUs),
    messagesPerSecond: job.messages / seconds,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
