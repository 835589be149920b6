import assert from 'node:assert/strict';
import { test } from 'node:test';
import { capabilitiesOf } from './capabilities.ts';
import { closeLater, eventfd } from './fd.ts';

test('threads that end while they are looked at are none', () => {
  const ROUNDS = 300;
  const THREADS = 20;
  for (let round = 0; round < ROUNDS; round++) {
    for (let n = 0; n < THREADS; n++) closeLater(eventfd());
    assert.ok(capabilitiesOf('self').length > 0);
  }
});
