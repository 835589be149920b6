/**
 * Interfaces that come, change and go, as the kernel announces them (RTMGRP_LINK). The kernel drops
 * announcements when nobody reads them in time; then the list is read again and the difference reported,
 * so that no interface is missed, only steps in between.
 */
import { FdWatch } from '../watch.ts';
import { type Link, listLinks, parseLink } from './link.ts';
import { RTM_DELLINK, RTM_NEWLINK, RTMGRP_LINK } from './rtnetlink.ts';
import { NetlinkSocket } from './socket.ts';

/** 'new' also tells of a changed interface; 'deleted' carries its last known state. */
export interface LinkEvent {
  type: 'new' | 'deleted';
  link: Link;
}

/** Datagrams handled per wake-up; the watch is level-triggered and comes again. */
const TURN_MAX = 64;
/** Datagrams thrown away before a resynchronisation: more than any receive buffer holds. */
const DRAIN_MAX = 100_000;

/**
 * Call `onChange` for every change from now on, in the namespace the calling thread is in now. Keeps the
 * process alive until `close`, which is idempotent; `onChange` may call it.
 */
export function watchLinks(onChange: (event: LinkEvent) => void): { close(): void } {
  const { events, queries, known } = openSockets();
  let open = true;

  function report(type: LinkEvent['type'], link: Link): void {
    if (!open) return;
    if (type === 'new') known.set(link.index, link);
    else known.delete(link.index);
    onChange({ type, link });
  }

  function resynchronise(): void {
    // What is still queued is older than what the list will say; it must not be applied after it.
    for (let turn = 0; turn < DRAIN_MAX && events.receive() !== 'empty'; turn++);
    const now = new Map(listLinks(queries).map((link) => [link.index, link]));
    for (const link of [...known.values()]) if (!now.has(link.index)) report('deleted', link);
    for (const link of now.values()) report('new', link);
  }

  const watch = new FdWatch(events.fd, () => {
    for (let turn = 0; turn < TURN_MAX && open; turn++) {
      const messages = events.receive();
      if (messages === 'empty') return;
      if (messages === 'lost') {
        resynchronise();
        return;
      }
      for (const message of messages) {
        const link = parseLink(message);
        if (link === null) continue;
        if (message.type === RTM_NEWLINK) report('new', link);
        else if (message.type === RTM_DELLINK) report('deleted', link);
      }
    }
  });
  return {
    close() {
      if (!open) return;
      open = false;
      watch.close();
      events.close();
      queries.close();
    },
  };
}

/** Announcements from before the list was made on, and a second socket, whose answers must not mix with them. */
function openSockets(): {
  events: NetlinkSocket;
  queries: NetlinkSocket;
  known: Map<number, Link>;
} {
  const events = new NetlinkSocket(RTMGRP_LINK);
  let queries: NetlinkSocket | null = null;
  try {
    queries = new NetlinkSocket();
    const known = new Map(listLinks(queries).map((link) => [link.index, link]));
    return { events, queries, known };
  } catch (error) {
    events.close();
    queries?.close();
    throw error;
  }
}
