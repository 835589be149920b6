/** Which memory of a client's a back-end maps: every check of one region, before anything is changed. */
import fs from 'node:fs';
import type { Arena } from '../ffi/arena.ts';
import { requireSealed } from '../ffi/memory.ts';
import type { MappedRegion } from './split-device.ts';
import { refuse } from './vhost-receiver.ts';
import type { MemRegion } from './vhost-user.ts';

const PAGE = 4096;
/** f_type of hugetlbfs, on which memfds of huge pages lie (statfs(2)). */
const HUGETLBFS_MAGIC = 0x9584_58f6;

export interface MemoryRules {
  /** Map memory that its owner could still shrink. A client could end the device by that: only for trusted ones. */
  allowUnsealed: boolean;
  /** Bytes that all regions of the client may have together; without it, as many as the arena has room for. */
  regionBytes?: number | undefined;
}

/** Refuse a set of regions that is larger than what was granted. */
export function checkTotal(regions: readonly MemRegion[], { regionBytes }: MemoryRules): void {
  if (regionBytes === undefined) return;
  const total = regions.reduce((sum, region) => sum + region.size, 0);
  if (total > regionBytes) refuse(`${total} bytes of memory, where ${regionBytes} were granted`);
}

/** Check and map one region. Past its end an access would be SIGBUS, so the file must be as long as it claims. */
export function mapRegion(
  arena: Arena,
  region: MemRegion,
  fd: number,
  rules: MemoryRules,
): MappedRegion {
  if (!rules.allowUnsealed) requireSealed(fd);
  const page = pageBytes(fd);
  // A hole that the owner punches into huge pages may be SIGBUS for us, when there is no page to fill it.
  if (page !== PAGE && !rules.allowUnsealed) refuse('memory of huge pages');
  if (page > arena.alignBytes) refuse(`memory of pages of ${page} bytes`);
  if (region.offset % page !== 0) refuse('the offset of a memory region is not page-aligned');
  // A part of a huge page cannot be unmapped.
  const length = page === PAGE ? region.size : Math.ceil(region.size / page) * page;
  if (fs.fstatSync(fd).size < region.offset + length) refuse('a memory region passes its file');
  return { ...region, at: arena.mapShared(fd, length, region.offset) };
}

/** Not `st_blksize`: of shared memory that may be huge pages, as a hint, where any page can be mapped by itself. */
function pageBytes(fd: number): number {
  const { type, bsize } = fs.statfsSync(`/proc/self/fd/${fd}`);
  return type === HUGETLBFS_MAGIC ? bsize : PAGE;
}
