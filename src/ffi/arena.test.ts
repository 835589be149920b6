import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { Arena } from './arena.ts';
import { closeFd } from './fd.ts';
import { memfdHuge, memfdSealed } from './memory.ts';

/** Whether every address of the arena's first `length` bytes is mapped. */
function isWhole({ address }: Arena, length: number): boolean {
  let at = address;
  for (const line of fs.readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [from, to] = line
      .split(' ', 1)[0]!
      .split('-')
      .map((hex) => Number.parseInt(hex, 16));
    if (from! <= at && at < to!) at = to!;
  }
  return at >= address + length;
}

test('a mapping that the kernel refuses leaves no hole, and its place is used next', () => {
  const arena = new Arena();
  const unmappable = fs.openSync('/proc/self/status', 'r');
  assert.throws(() => arena.mapShared(unmappable, 4096, 0), { code: 'ARK_SYSCALL' });
  const fd = memfdSealed('read-only', 8192);
  const readOnly = fs.openSync(`/proc/self/fd/${fd}`, 'r');
  assert.throws(() => arena.mapShared(readOnly, 8192, 0), { code: 'ARK_SYSCALL' });
  // Refused late, by the file itself: MAP_FIXED would have made room by then. 2 MiB and no page to put there, where the
  // machine has set none aside.
  const huge = memfdHuge();
  if (huge >= 0) {
    try {
      arena.mapShared(huge, 2 * 1024 * 1024, 0);
      arena.unmap(0);
    } catch {
      assert.ok(isWhole(arena, 2 * 1024 * 1024));
    }
    closeFd(huge);
  }
  assert.ok(isWhole(arena, 2 * 1024 * 1024));
  assert.equal(arena.mappedBytes, 0);
  assert.equal(arena.mapShared(fd, 8192, 0), 0);
  arena.u8[8191] = 7;
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, 8191);
  assert.equal(byte[0], 7);
  arena.unmap(0);
  assert.equal(arena.u8[8191], 0);
  assert.ok(isWhole(arena, 2 * 1024 * 1024));
  for (const open of [unmappable, fd, readOnly]) closeFd(open);
});
