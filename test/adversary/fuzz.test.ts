/**
 * Messages made from the protocol's table and spoilt, by a domain with capabilities of its own: the daemon answers each,
 * and whatever it grants meanwhile was somebody's to give.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { rangeCovers } from '../../src/control/caps/range.ts';
import type { CapInfo } from '../../src/control/protocol.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep } from '../support/until.ts';
import type { Fuzzed } from './attacks/fuzz.ts';
import { isLong } from './length.ts';
import { ATTACKER, type Neighbour, SOFTNIC, Stage } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const SEED = 0x5eed_ad5e;
const MESSAGES = isLong ? 1_000_000 : 100_000;
const PARTS = 10;
const LOOK_EVERY_MS = 250;

describe('fuzzed control messages', { skip }, () => {
  let stage: Stage;
  let neighbour: Neighbour;
  /** Domains that were the attacker's user's at some time. */
  const attackers = new Set<number>();
  let looked = 0;

  before(async () => {
    stage = await Stage.open();
    neighbour = await stage.neighbour(SOFTNIC);
  });
  after(() => stage?.close());

  async function allCapabilities(): Promise<Map<number, CapInfo>> {
    const all = new Map<number, CapInfo>();
    for (let after = 0, omitted = 1; omitted > 0; ) {
      const { reply } = await stage.root.request('cap.list', { after });
      for (const cap of reply.capabilities) all.set(cap.cap, cap);
      after = reply.capabilities.at(-1)?.cap ?? after;
      omitted = reply.capabilities.length === 0 ? 0 : reply.omitted;
    }
    return all;
  }

  async function noteAttackers(): Promise<void> {
    for (let after = 0, omitted = 1; omitted > 0; ) {
      const { objects, omitted: left } = (await stage.root.request('list', { after })).reply;
      for (const { kind, id, detail } of objects) {
        if (kind === 'domain' && detail.uid === ATTACKER) attackers.add(id);
      }
      after = objects.at(-1)?.id ?? after;
      omitted = objects.length === 0 ? 0 : left;
    }
  }

  /** Every capability is at most what it was derived from, and of the attacker's none is rooted in what was never his. */
  function check(all: Map<number, CapInfo>): void {
    for (const cap of all.values()) {
      let root = cap;
      while (root.parent !== 0) {
        const parent = all.get(root.parent);
        // It went, with all below it, between two pages.
        if (parent === undefined) break;
        const text = `${JSON.stringify(root)} below ${JSON.stringify(parent)}`;
        if (root.kind === parent.kind) {
          assert.ok(
            root.rights.every((right) => parent.rights.includes(right)),
            text,
          );
          assert.ok(rangeCovers(root.kind, parent.range, root.range), text);
        } else assert.deepEqual([root.kind, parent.kind], ['vnic', 'device'], text);
        root = parent;
      }
      if (root.parent !== 0) continue;
      looked++;
      const text = `${JSON.stringify(cap)} from ${JSON.stringify(root)}`;
      if (cap.holder === neighbour.info.domain) {
        const isGift = attackers.has(root.holder);
        assert.ok(isGift || root.holder === neighbour.info.domain, text);
      } else if (attackers.has(cap.holder) && !attackers.has(root.holder)) {
        // What it may look up: a way to connect to who listens for everybody.
        assert.equal(root.cap, neighbour.info.endpoint.cap, text);
        assert.deepEqual(cap.rights, ['connect'], text);
      }
      if (!attackers.has(root.holder)) continue;
      if (root.kind === 'addresses') {
        const range = root.range as { first: number; last: number };
        assert.ok((range.first & 0xff) >= 32 && (range.last & 0xff) < 48, text);
      }
    }
  }

  test(`${MESSAGES} of them, seed 0x${SEED.toString(16)}`, async () => {
    const { info } = neighbour;
    const known = [...info.vnics, ...info.caps, info.domain, info.region.id, info.endpoint.id];
    const before = await stage.daemonCounters();
    const totals = { answers: 0, ok: 0, connections: 0 };
    const codes: Record<string, number> = {};
    let fuzzing = true;
    const looking = (async () => {
      while (fuzzing) {
        await noteAttackers();
        const all = await allCapabilities();
        await noteAttackers();
        check(all);
        await sleep(LOOK_EVERY_MS);
      }
    })();
    try {
      for (let part = 0; part < PARTS; part++) {
        const attacker = await stage.attacker();
        await neighbour.report();
        const args = { seed: SEED + part, count: MESSAGES / PARTS, known };
        const fuzzed = await attacker.act<Fuzzed>('fuzz', args);
        totals.answers += fuzzed.answers;
        totals.ok += fuzzed.ok;
        totals.connections += fuzzed.connections;
        for (const [code, n] of Object.entries(fuzzed.codes)) codes[code] = (codes[code] ?? 0) + n;
        await neighbour.assertUnharmed();
        await stage.endAttackers();
      }
    } finally {
      fuzzing = false;
      await looking;
    }
    const now = await stage.daemonCounters();
    assert.ok(totals.answers >= MESSAGES);
    assert.equal(now.defects, 0, stage.daemon.log);
    assert.ok(totals.ok > MESSAGES / 20, `${totals.ok} were valid`);
    const refused = Object.values(codes).reduce((sum, n) => sum + n, 0);
    assert.ok(
      now.requestsRefused! - before.requestsRefused! >= refused - (codes.ARK_BAD_MESSAGE ?? 0),
    );
    assert.ok(now.badMessages! - before.badMessages! > 0);
    assert.equal(codes.ARK_INTERNAL, undefined);
    assert.ok(looked > 0);
    console.log(
      `${JSON.stringify(totals)}, ${looked} capabilities looked at, ${JSON.stringify(codes)}`,
    );
  });
});
