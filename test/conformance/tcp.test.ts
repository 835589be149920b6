/**
 * TCP by the standards: one case for each thing that they ask of an endpoint, run by the same script against the Linux
 * kernel and against Extaris. The kernel shows that a case is right; where it does otherwise, the case says why.
 */
import { describe, test } from 'node:test';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { ATTACKS } from './tcp/cases/attacks.ts';
import { CLOSING } from './tcp/cases/closing.ts';
import { DATA } from './tcp/cases/data.ts';
import { HANDSHAKE } from './tcp/cases/handshake.ts';
import { OPTIONS } from './tcp/cases/options.ts';
import { TIMING } from './tcp/cases/timing.ts';
import { ExtarisSubject } from './tcp/extaris.ts';
import { KernelLab } from './tcp/kernel.ts';
import { type Case, Script } from './tcp/script.ts';
import type { Subject } from './tcp/subject.ts';

const GROUPS: Readonly<Record<string, readonly Case[]>> = {
  timing: TIMING,
  handshake: HANDSHAKE,
  options: OPTIONS,
  data: DATA,
  closing: CLOSING,
  attacks: ATTACKS,
};

async function runCase(subject: Subject, item: Case): Promise<void> {
  const script = new Script(subject, item.iss);
  try {
    await item.run(script, script.peer);
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${script.peer.log.join('\n')}`, { cause: error });
  } finally {
    await subject.finish();
  }
}

function title(item: Case, subject: 'kernel' | 'extaris'): string {
  const note = item.except?.subject === subject ? ` [otherwise: ${item.except.why}]` : '';
  return `${item.name} (${item.rfc})${note}`;
}

/** Cases against the kernel wait in real time: as many at once as a busy machine reads in time. */
const SIDE_BY_SIDE = 40;
const skip = rootMissing();

describe('the Linux kernel', { skip, concurrency: SIDE_BY_SIDE }, () => {
  if (skip !== false) return;
  isolateNetwork();
  const lab = new KernelLab();
  for (const [group, cases] of Object.entries(GROUPS)) {
    for (const item of cases) {
      test(`${group}: ${title(item, 'kernel')}`, () => runCase(lab.subject(), item));
    }
  }
});

describe('Extaris', () => {
  for (const [group, cases] of Object.entries(GROUPS)) {
    for (const item of cases) {
      const options = item.todo === undefined ? {} : { todo: item.todo };
      test(`${group}: ${title(item, 'extaris')}`, options, () =>
        runCase(new ExtarisSubject(), item),
      );
    }
  }
});
