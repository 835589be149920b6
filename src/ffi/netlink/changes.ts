/**
 * When the kernel's network configuration changes, without saying how: who is told reads what it needs anew. So what is lost
 * when nobody reads the notifications in time is no loss.
 */
import { FdWatch } from '../watch.ts';
import { NetlinkSocket } from './socket.ts';

/** Datagrams read per wake-up; the watch is level-triggered and comes again. */
const TURN_MAX = 256;

/**
 * Call `onChange` after every change of the multicast groups `groups` (RTMGRP_ bits), in the namespace the calling thread is
 * in now; once for those that come together. Does not keep the process alive. `close` is idempotent.
 */
export function watchChanges(groups: number, onChange: () => void): { close(): void } {
  const events = new NetlinkSocket(groups);
  let open = true;
  const watch = new FdWatch(events.fd, () => {
    for (let turn = 0; turn < TURN_MAX && events.receive() !== 'empty'; turn++);
    if (open) onChange();
  });
  watch.unref();
  return {
    close() {
      if (!open) return;
      open = false;
      watch.close();
      events.close();
    },
  };
}
