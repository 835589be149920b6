/**
 * The application of the crash tests: opens a VNIC (`APP_VNIC`: spec or name), receives, and reopens it when it goes.
 * Says on stdout what happens. Ends when its stdin does.
 */
import { type ArrakisError, connect, type Domain, type Vnic } from '../../src/arrakis/index.ts';

const BATCH = 64;
const REOPEN_MS = 20;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

function receive(vnic: Vnic): () => number {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  return () => {
    const count = vnic.queue.rxBatch(frames, lengths, BATCH);
    for (let i = 0; i < count; i++) vnic.queue.free(frames[i]!);
    return count;
  };
}

async function open(domain: Domain): Promise<void> {
  try {
    const vnic = await domain.openVnic(process.env.APP_VNIC);
    vnic.poll(receive(vnic));
    vnic.once('gone', (reason) => {
      say(`gone ${reason}`);
      void vnic.close().then(() => open(domain));
    });
    vnic.on('reattached', () => say(`reattached ${vnic.name}`));
    say(`open ${vnic.name} ${vnic.driver} uid ${process.getuid!()}`);
  } catch (error) {
    const { code } = error as ArrakisError;
    if (code === 'ARK_NO_DAEMON') return;
    say(`failed ${code}`);
    setTimeout(() => void open(domain), REOPEN_MS);
  }
}

process.stdin.on('end', () => process.exit(0)).resume();
const domain = await connect({ name: 'app' }).catch((error: ArrakisError) => {
  say(`refused ${error.code}`);
  process.exit(1);
});
domain.on('resumed', () => say(`resumed ${domain.vnics.length}`));
domain.on('control-lost', (reason) => say(`control-lost ${reason}`));
say(`fd ${process.env.ARRAKIS_FD ?? 'taken'}`);
await open(domain);
