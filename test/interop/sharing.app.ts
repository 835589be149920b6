/**
 * The applications of the sharing tests: `node sharing.app.js ROLE SOCKET PATH`. Each prints one line of JSON for what
 * happens, and stays until its standard input ends.
 */
import fs from 'node:fs';
import { connect, type Domain, LINK_STATE } from '../../src/arrakis/index.ts';
import { mapShared } from '../../src/ffi/memory.ts';
import { ringBytes, TAIL } from '../../src/message/layout.ts';

const [role, socket, path] = process.argv.slice(2) as [string, string, string];
const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);

const codeOf = (body: () => unknown): string => {
  try {
    body();
    return 'done';
  } catch (error) {
    const { errno, code } = error as { errno?: unknown; code?: unknown };
    return typeof errno === 'string' ? errno : String(code);
  }
};

/** What a reader can do with the descriptor of a region beyond reading. */
async function read(domain: Domain): Promise<void> {
  const { capability } = await domain.names.lookup(path);
  const { reply, fds } = await domain.request('region.open', { cap: capability!.cap });
  const fd = fds[0]!;
  const text = Buffer.alloc(5);
  fs.readSync(fd, text, 0, 5, 0);
  say({
    text: text.toString(),
    writable: reply.writable,
    mapWritable: codeOf(() => mapShared(fd, reply.bytes)),
    mapReadable: codeOf(() => mapShared(fd, reply.bytes, 0, false, true)),
    write: codeOf(() => fs.writeSync(fd, 'x', 0)),
    reopen: codeOf(() => fs.openSync(`/proc/self/fd/${fd}`, 'r+')),
    chmod: codeOf(() => fs.fchmodSync(fd, 0o666)),
    truncate: codeOf(() => fs.ftruncateSync(fd, 0)),
  });
}

/** Maps a region and keeps looking at it. */
async function hold(domain: Domain): Promise<void> {
  const { capability } = await domain.names.lookup(path);
  const region = await domain.openRegion(capability!.cap);
  const bytes = new Uint8Array(region.buffer);
  domain.on('cap-revoked', async () => {
    const again = await domain.openRegion(region.cap).then(
      () => 'opened',
      (error) => error.code,
    );
    say({ revoked: true, again, first: bytes[0] });
  });
  say({ first: bytes[0] });
}

async function echo(domain: Domain): Promise<void> {
  const listener = await domain.listen(path);
  say({ listening: true });
  for await (const channel of listener) {
    channel.serve((message) => message);
    say({ connected: channel.peer });
    channel.on('close', (reason) => say({ closed: reason }));
  }
}

/** Sends one whole message, half of another, and waits to be killed. */
async function half(domain: Domain): Promise<void> {
  const { link } = await domain.connectLink(path);
  link.send(Buffer.from('"whole"'));
  link.publish();
  link.memory.bytes.write('"never', link.reserve(100));
  say({ written: true });
}

/** Claims to have written more than a ring holds, or something that is no message. */
async function garbage(domain: Domain): Promise<void> {
  for (const kind of ['position', 'text']) {
    const { link } = await domain.connectLink(path);
    const tail = (ringBytes(link.capacity) + TAIL) / 4;
    while (link.state === LINK_STATE.open) {
      link.send(Buffer.from(kind === 'position' ? '1' : 'no JSON at all'));
      link.publish();
      if (kind === 'position') Atomics.store(link.memory.words, tail, 0x7ffffff0);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    say({ kind, ended: link.endReason });
    link.close();
  }
}

const roles: Record<string, (domain: Domain) => Promise<void>> = {
  read,
  hold,
  echo,
  half,
  garbage,
};
process.stdin.on('end', () => process.exit(0)).resume();
try {
  await roles[role]!(await connect({ socket, name: role }));
} catch (error) {
  say({ failed: (error as { code?: string }).code ?? String(error) });
}
