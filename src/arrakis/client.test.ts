import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseCpus } from '../base/cpus.ts';
import { ArrakisError } from '../base/errors.ts';
import { closeAll, closeFd, isOpen, openFds, setNonBlocking } from '../ffi/fd.ts';
import { receiveMessage, SOCK_SEQPACKET, sendMessage, socketPair } from '../ffi/unix.ts';
import { ControlChannel, openControlSocket } from './client.ts';

const withCode = (code: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === code;

/** A control channel and the daemon's end of it, spoken by hand. */
function pair() {
  const [ours, theirs] = socketPair(SOCK_SEQPACKET);
  const events: { name: string; fds: number[] }[] = [];
  const closed: string[] = [];
  const channel = new ControlChannel(ours, {
    onEvent: (name, _body, fds) => events.push({ name, fds }),
    onClose: (reason) => closed.push(reason),
  });
  setNonBlocking(theirs);
  const answer = (message: object, fds: number[] = []) =>
    sendMessage(theirs, Buffer.from(JSON.stringify(message)), fds);
  return { channel, theirs, events, closed, answer };
}

test('answers find their questions, whatever their order', async () => {
  const { channel, theirs, answer } = pair();
  const first = channel.request('vnic.close', { vnic: 1 });
  const second = channel.request('vnic.close', { vnic: 2 });
  answer({ id: 2, ok: false, error: { code: 'ARK_NOT_FOUND', message: 'no', hint: 'look' } });
  answer({ id: 1, ok: true });
  assert.deepEqual(await first, { reply: {}, fds: [], takeovers: 0 });
  await assert.rejects(second, withCode('ARK_NOT_FOUND'));
  const buffer = Buffer.alloc(100);
  const received = receiveMessage(theirs, buffer, 1)!;
  assert.equal(buffer.toString('utf8', 0, received.length), '{"id":1,"op":"vnic.close","vnic":1}');
  channel.close();
  closeFd(theirs);
});

test('another daemon takes over: what the old one had read is lost, what it had not is answered', async () => {
  const { channel, theirs, answer, closed } = pair();
  const lost = channel.request('vnic.close', { vnic: 1 });
  const unread = channel.request('vnic.close', { vnic: 2 });
  answer({ event: 'resumed', pid: 1, version: 'next', vnics: [] });
  answer({ id: 2, ok: true });
  assert.deepEqual(await unread, { reply: {}, fds: [], takeovers: 1 });
  // Asked for by the channel itself, to know where it is.
  answer({ id: 3, ok: true, objects: [], omitted: 0 });
  await assert.rejects(lost, withCode('ARK_NO_DAEMON'));
  assert.ok(!channel.closed);
  assert.deepEqual(closed, []);
  channel.close();
  closeFd(theirs);
});

test('descriptors that nobody asked for are closed', async () => {
  const { channel, theirs, answer, events } = pair();
  const file = fs.openSync('/dev/null', 'r');
  const before = openFds().length;
  const request = channel.request('vnic.close', { vnic: 1 });
  answer({ id: 99, ok: true }, [file]);
  answer({ event: 'from.the.future' }, [file]);
  answer({ id: 1, ok: true }, [file]);
  await assert.rejects(request, withCode('ARK_BAD_MESSAGE'));
  assert.equal(openFds().length, before);
  answer({ event: 'capture', vnic: 1, snaplen: 64 }, [file]);
  while (events.length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(events[0]!.fds.length, 1);
  closeAll([...events[0]!.fds, file, theirs]);
  channel.close();
});

test('when the daemon goes, requests fail and later ones too', async () => {
  const { channel, theirs, closed } = pair();
  const request = channel.request('list', {});
  closeFd(theirs);
  await assert.rejects(request, withCode('ARK_NO_DAEMON'));
  await assert.rejects(channel.request('list', {}), withCode('ARK_NO_DAEMON'));
  assert.equal(closed.length, 1);
});

test('a daemon that speaks nonsense is left', async () => {
  const { channel, theirs } = pair();
  const request = channel.request('list', {});
  sendMessage(theirs, Buffer.from('what?'));
  await assert.rejects(request, /not JSON/);
  closeFd(theirs);
});

test('without a daemon the hint is the command that starts one', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ctl-'));
  const env = { ARRAKIS_DIR: dir };
  assert.throws(() => openControlSocket({ env }), {
    code: 'ARK_NO_DAEMON',
    hint: 'sudo arrakis up',
  });
  // Something lies there, and nobody listens.
  fs.writeFileSync(path.join(dir, 'control.sock'), '');
  assert.throws(() => openControlSocket({ env }), withCode('ARK_NO_DAEMON'));
  fs.rmSync(dir, { recursive: true });
});

test('an inherited channel is taken out of the environment and not inherited further', () => {
  const [ours, theirs] = socketPair(SOCK_SEQPACKET);
  const env: NodeJS.ProcessEnv = { ARRAKIS_FD: String(ours) };
  assert.equal(openControlSocket({ env }), ours);
  assert.equal(env.ARRAKIS_FD, undefined);
  const flags = fs.readFileSync(`/proc/self/fdinfo/${ours}`, 'utf8');
  assert.match(flags, /^flags:\s*02\d{6}$/m, 'close-on-exec');
  closeAll([ours, theirs]);
  for (const text of [String(ours), 'x', '-1', '']) {
    assert.equal(isOpen(ours), false);
    assert.throws(
      () => openControlSocket({ env: { ARRAKIS_FD: text } }),
      withCode('ARK_NO_DAEMON'),
    );
  }
});

test('lists of CPUs', () => {
  assert.deepEqual(parseCpus('0'), [0]);
  assert.deepEqual(parseCpus('0,2-4'), [0, 2, 3, 4]);
  for (const text of ['', 'a', '3-1', '1,', '5000', '0-99999']) {
    assert.throws(() => parseCpus(text), withCode('ARK_BAD_ARGUMENT'), text);
  }
});
