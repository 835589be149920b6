import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingPackages } from './packages.ts';

test('what dpkg does not know as installed is missing', (t) => {
  const missing = missingPackages(['dpkg', 'arrakis-no-such-package']);
  if (missing === null) return t.skip('not Debian');
  assert.deepEqual(missing, ['arrakis-no-such-package']);
  assert.deepEqual(missingPackages(['dpkg']), []);
});
