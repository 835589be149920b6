/** A hostile peer on an endpoint: it loses its channel, with a reason, and nobody else notices. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { EndpointChannel } from '../../src/arrakis/index.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep } from '../support/until.ts';
import { CLIENT_ATTACKS, SERVER_ATTACKS } from './attacks/peers.ts';
import type { Actor } from './process.ts';
import { type Neighbour, SOFTNIC, Stage } from './stage.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const BROKE = /^the peer broke the protocol: /;
/** How a listener's channel ends with each; null: by the attacker's own leaving, in whatever way it is noticed. */
const ENDINGS: Readonly<Record<string, RegExp | null>> = {
  'a position past the ring': /writer's position \d+ is further/,
  'a position that runs backwards': /writer's position/,
  'a position far away': /writer's position/,
  'a position between records': /writer's position/,
  'a length that no ring has': /announced a message of 2147483647 bytes/,
  'a length below zero': /announced a message of 4294967294 bytes/,
  'a length of more than was published': /announced a message of 500 bytes/,
  'a length of more than a message': /announced a message/,
  'a skip over what was not published': /announced a skip/,
  'a request that is no JSON': /JSON/,
  'a message that is no text': /JSON/,
  'an empty request': /JSON/,
  'answers that are never read': /does not read what it asked for/,
  'a reader that is where nothing was sent': /reader's position/,
  'a text that nests without end': null,
  'kinds and numbers that nobody has': null,
  'a bell that never stops': null,
  'noise all over the memory': BROKE,
};
/** What a caller gets of each. */
const OUTCOMES: Readonly<Record<string, { code: string; closed: boolean }>> = {
  'an answer that is no JSON': { code: 'ARK_GONE', closed: true },
  'an error that is none': { code: 'ARK_INTERNAL', closed: false },
  'items where an answer is due': { code: 'ARK_PROTOCOL', closed: false },
  'the end of a stream that was not asked for': { code: 'ARK_PROTOCOL', closed: false },
  'an unknown kind of answer': { code: 'ARK_GONE', closed: true },
  'a position past the ring': { code: 'ARK_GONE', closed: true },
  'an answer to somebody else': { code: 'ARK_TIMEOUT', closed: false },
  'nothing at all': { code: 'ARK_TIMEOUT', closed: false },
};

describe('hostile peers', { skip }, () => {
  let stage: Stage;
  let neighbour: Neighbour;
  let attacker: Actor;
  /** Somebody else's conversation with the neighbour, which goes on all the time. */
  let honest: EndpointChannel;
  let talking = true;
  let talked = 0;
  let talk: Promise<void>;

  before(async () => {
    stage = await Stage.open();
    neighbour = await stage.neighbour(SOFTNIC);
    honest = await stage.root.connect(neighbour.info.endpoint.path);
    talk = (async () => {
      for (; talking; talked++) {
        assert.deepEqual(await honest.request({ talked }), { talked });
        await sleep(5);
      }
    })();
  });
  after(async () => {
    talking = false;
    await talk;
    honest.close();
    await stage.close();
  });
  beforeEach(async () => {
    attacker = await stage.attacker();
    await neighbour.report();
  });
  afterEach(async () => {
    const before = talked;
    await neighbour.assertUnharmed();
    await stage.endAttackers();
    assert.ok(talked > before && !honest.closed, 'the honest conversation goes on');
  });

  test('who connects and breaks the rules is told from the rest, by name', async () => {
    assert.deepEqual(Object.keys(ENDINGS), CLIENT_ATTACKS);
    const { path } = neighbour.info.endpoint;
    for (const attack of CLIENT_ATTACKS) {
      const domain = await attacker.act<number>('attackListener', { path, attack });
      const ending = await neighbour.actor.act<string>('endingWith', { domain });
      const expected = ENDINGS[attack];
      if (expected == null) assert.match(ending, /^the peer /, attack);
      else {
        assert.match(ending, BROKE, attack);
        assert.match(ending, expected, attack);
      }
    }
  });

  test('who listens and answers with nonsense harms only its own channel', async () => {
    assert.deepEqual(Object.keys(OUTCOMES), SERVER_ATTACKS);
    for (const [n, attack] of SERVER_ATTACKS.entries()) {
      const path = `/app/bad-${n}`;
      await attacker.act('listenBadly', { path, attack });
      const outcome = await neighbour.actor.act('call', { to: path });
      assert.deepEqual(outcome, OUTCOMES[attack], attack);
    }
  });

  test('who dies in the middle of a message has sent nothing of it', async () => {
    const { path } = neighbour.info.endpoint;
    const domain = await attacker.act<number>('writeHalf', { path });
    await attacker.kill();
    assert.equal(await neighbour.actor.act('endingWith', { domain }), 'the peer ended');
  });
});
