/** `arrakis capture`: the packets of a VNIC as pcapng, written by the application's own library into our file. */
import fs from 'node:fs';
import type { Command } from 'commander';
import { connect } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { openOutput } from '../output.ts';
import { findObject, takeSnapshot } from '../snapshot.ts';
import { wholeNumber } from '../whole-number.ts';

interface CaptureOptions {
  write: string;
  seconds?: number;
  snaplen?: number;
}

export function registerCapture(program: Command): void {
  program
    .command('capture')
    .description('record the packets of a VNIC as pcapng, for Wireshark and tcpdump -r')
    .argument('<vnic>', 'name or number of the VNIC (arrakis ls)')
    .requiredOption('-w, --write <file>', 'file to write, or - for standard output')
    .option('--seconds <n>', 'stop after so long (default: at Ctrl-C)', wholeNumber)
    .option('--snaplen <bytes>', 'bytes kept of each packet', wholeNumber)
    .action(capture);
}

async function capture(wanted: string, options: CaptureOptions): Promise<void> {
  const toFile = options.write !== '-';
  // The application writes into this descriptor: a terminal would also let it read what is typed.
  if (!toFile && process.stdout.isTTY) {
    throw new ArrakisError('ARK_USAGE', 'a capture is binary: not to a terminal', {
      hint: 'name a file, or pipe it: arrakis capture VNIC -w - | tcpdump -nr -',
    });
  }
  const domain = await connect({ name: 'arrakis-capture' });
  try {
    const vnic = findObject(await takeSnapshot(domain), wanted, ['vnic']);
    const fd = toFile ? openOutput(options.write) : 1;
    const args = options.snaplen === undefined ? {} : { snaplen: options.snaplen };
    await domain.request('capture.start', { vnic: vnic.id, ...args }, [fd]);
    const until = options.seconds === undefined ? 'Ctrl-C ends it' : `for ${options.seconds} s`;
    process.stderr.write(`recording ${vnic.name}; ${until}\n`);
    const lost = new Promise<void>((resolve) => domain.once('control-lost', () => resolve()));
    await Promise.race([interrupted(options.seconds), lost]);
    await domain.request('capture.stop', { vnic: vnic.id }).catch((error: ArrakisError) => {
      if (error.code !== 'ARK_NOT_FOUND' && error.code !== 'ARK_NO_DAEMON') throw error;
    });
    if (toFile) process.stderr.write(`${fs.fstatSync(fd).size} bytes in ${options.write}\n`);
  } finally {
    await domain.close();
  }
}

/** Resolves at SIGINT, SIGTERM, or after `seconds`. */
function interrupted(seconds: number | undefined): Promise<void> {
  return new Promise((resolve) => {
    const keepAlive = setInterval(() => {}, 1000);
    const finish = (): void => {
      clearInterval(keepAlive);
      resolve();
    };
    process.once('SIGINT', finish);
    process.once('SIGTERM', finish);
    if (seconds !== undefined) setTimeout(finish, seconds * 1000);
  });
}
