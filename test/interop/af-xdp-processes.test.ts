/**
 * Two unprivileged applications on AF_XDP, as domains would be: this process attaches, they get descriptors. Their
 * figures are reported, and held to bounds that only a defect would break.
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { FAR_INTERFACE, flow, HERE, Lab, Outcome, THERE } from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const APP = fileURLToPath(new URL('./af-xdp-app.js', import.meta.url));
const GEOMETRY = { frameSize: 2048, frameCount: 4096, ringSize: 1024 } as const;
const TIMEOUT_MS = 90_000;

function start(lab: Lab, role: 'echo' | 'generate', vnic: XdpVnic): Outcome {
  const args = [APP, role, JSON.stringify(vnic.grant)];
  // Spawned through the namespace only so that closing the lab ends it.
  const stdio = ['ignore', 'pipe', 'pipe', ...vnic.fds] as ('ignore' | 'pipe' | number)[];
  return new Outcome(lab.far.spawn(process.execPath, args, { stdio }));
}

describe('af-xdp between two processes of nobody', { skip }, () => {
  for (const kind of ['direct', 'switched'] as const) {
    test(`${kind}: a million packets, no garbage, no privilege`, async (t) => {
      if (availableParallelism() < 2) return t.skip('needs two processors');
      const leaks = new LeakCheck();
      const lab = new Lab();
      let far: XdpInterface | null = null;
      try {
        const vnic = lab.attach(kind, [flow('udp', HERE.text, 7)], GEOMETRY);
        far = lab.far.run(() => XdpInterface.open(FAR_INTERFACE));
        const filters = [flow('udp', THERE.text, 9999)];
        const source = lab.far.run(() =>
          far!.attachDirect({ name: 'generator', filters, ...GEOMETRY }),
        );
        const echo = start(lab, 'echo', vnic);
        const generator = start(lab, 'generate', source);
        await until(() => echo.ended() && generator.ended(), TIMEOUT_MS, 'both applications');
        const echoed = JSON.parse(echo.text);
        const measured = JSON.parse(generator.text);
        t.diagnostic(
          `${kind}: ${Math.round(measured.packetsPerSecond)} echoes/s, p50 ${measured.p50} us`,
        );
        assert.deepEqual(echoed, { uid: 65534, xsk: 'denied', complete: true, collections: 0 });
        assert.equal(measured.uid, 65534);
        assert.ok(measured.packetsPerSecond > 10_000, `${measured.packetsPerSecond} echoes/s`);
      } finally {
        lab.far.run(() => far?.close());
        lab.close();
      }
      await leaks.assertNone();
    });
  }
});
