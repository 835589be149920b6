/**
 * The device of `arrakis bench protection`: the product's software NIC, or one without a mechanism (parts.ts), in a process
 * of its own with the control channel as descriptor 3, or in a thread of the process that sends.
 *
 *   device.js WITHOUT
 */
import { readlinkSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { monotonicUs32 } from '../../src/ffi/clock.ts';
import { setCloseOnExec } from '../../src/ffi/fd.ts';
import { prepareSignals } from '../../src/ffi/peer-eventfd.ts';
import { setTimerSlack } from '../../src/ffi/process.ts';
import { run } from '../../src/softnic/loop.ts';
import { SoftNic } from '../../src/softnic/nic.ts';
import { PARTS_WITHOUT, type PartsName } from './parts.ts';

const CONTROL_FD = 3;

/** What a thread is started with. */
export interface DeviceThread {
  fd: number;
  without: PartsName;
}

function serve(fd: number, without: PartsName): void {
  setCloseOnExec(fd);
  prepareSignals();
  setTimerSlack(1);
  run(new SoftNic(fd, PARTS_WITHOUT[without]), monotonicUs32);
}

if (isMainThread) {
  serve(CONTROL_FD, process.argv[2] as PartsName);
  process.exit(0);
} else {
  const { fd, without } = workerData as DeviceThread;
  // The number by which the kernel knows this thread: "PID/task/TID".
  parentPort!.postMessage(Number(readlinkSync('/proc/thread-self').split('/').at(-1)));
  serve(fd, without);
}
