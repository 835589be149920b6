/** An application under a policy: reads commands, a line each, and answers each with a line that begins with `= `. */
import readline from 'node:readline';
import { ArrakisError, connect, formatIpv4 } from '../../src/arrakis/index.ts';

const domain = await connect({ name: 'policy-app' });

async function perform(command: string): Promise<string> {
  const [verb, spec = ''] = command.split(' ');
  if (verb === 'caps') {
    const { reply } = await domain.request('cap.list', {});
    return reply.capabilities
      .filter(({ kind }) => kind !== 'vnic')
      .map(({ kind, object }) => `${kind}:${object}`)
      .join(' ');
  }
  const vnic = await domain.openVnic(spec);
  vnic.on('gone', () => console.log('gone'));
  return `open ${formatIpv4(vnic.address)}`;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    console.log(`= ${await perform(line)}`);
  } catch (error) {
    console.log(`= ${error instanceof ArrakisError ? error.code : String(error)}`);
  }
}
process.exit(0);
