/**
 * VLAN tags that travel beside the frame: a frame of a VLAN is not to be taken for one without a tag. The sender is a
 * kernel that puts the tag on after the stack, as a VLAN device does (which not every kernel has). Needs root.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { XdpInterface } from '../../src/drivers/af-xdp/attach.ts';
import { openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { getVlanOffload, setVlanOffload } from '../../src/ffi/ethtool.ts';
import { closeFd, writeFd } from '../../src/ffi/fd.ts';
import { createVethPair, deleteLink, requireLink, setLinkUp } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { udpFrame } from '../support/frames.ts';
import { isolateNetwork } from '../support/network.ts';
import { requirePackage, rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';
import { flow, GEOMETRY, HERE, receiveAll, THERE } from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const NEAR = 'vla0';
const FAR = 'vlb0';
const SETTLE_MS = 100;

/** A program at tc's way out of an interface (tcx) that tags every frame with VLAN 5: bpf_skb_vlan_push. */
const PUSH = `
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr.ljust(128, b'\\0'), 128)
    fd = libc.syscall(321, command, buffer, 128)
    if fd < 0: sys.exit('bpf %d: errno %d' % (command, ctypes.get_errno()))
    return fd
insn = lambda code, register, imm: struct.pack('<BBhi', code, register, 0, imm)
# r2 = ETH_P_8021Q, r3 = 5, call bpf_skb_vlan_push, r0 = TCX_PASS, exit
code = insn(0xb7, 2, 0x0081) + insn(0xb7, 3, 5) + insn(0x85, 0, 18) + insn(0xb7, 0, 0) + insn(0x95, 0, 0)
program, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b'GPL')
fd = bpf(5, struct.pack('<IIQQ', 3, len(code) // 8, ctypes.addressof(program), ctypes.addressof(license)))
link = bpf(28, struct.pack('<IIII', fd, socket.if_nametoindex(sys.argv[1]), 47, 0))
print('tags', flush=True)
sys.stdin.read()
`;

describe('VLAN tags', { skip }, () => {
  let undo: (() => void)[] = [];
  beforeEach(() => {
    const { a, b } = createVethPair({ name: NEAR, mac: HERE.mac }, { name: FAR, mac: THERE.mac });
    for (const index of [a, b]) setLinkUp(index);
    undo = [() => deleteLink(a)];
  });
  afterEach(() => {
    for (const step of undo.reverse()) step();
  });

  /** The interface, a VNIC on it, and a sender at the far end. */
  function open() {
    const nic = XdpInterface.open(NEAR);
    undo.push(() => nic.close());
    const filters = [flow('udp', HERE.text, 7)];
    const vnic = nic.attachSwitched({ name: 'vlan', filters, ...GEOMETRY });
    const [region, socket] = vnic.fds as [number, number];
    const queue = openAfXdpQueue(vnic.grant, { region, socket });
    undo.push(() => queue.close());
    const fd = openPacketSocket(requireLink(FAR).index);
    undo.push(() => closeFd(fd));
    const to = { mac: nic.mac, ip: HERE.ip, port: 7 };
    const plain = udpFrame({ ...THERE, port: 7 }, to, Buffer.alloc(22, 'v'));
    let received = 0;
    const count = (): number => {
      received += receiveAll(queue).length;
      return received;
    };
    return { nic, plain, count, send: (bytes: Uint8Array) => void writeFd(fd, bytes) };
  }

  async function tagAtFarEnd(): Promise<void> {
    const child = spawn('python3', ['-c', PUSH, FAR], { stdio: ['pipe', 'pipe', 'inherit'] });
    undo.push(() => child.kill('SIGKILL'));
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    assert.match(said.toString(), /^tags/);
  }

  test('a tag in the frame is seen: it is not ours', async () => {
    const { plain, count, send } = open();
    send(plain);
    await until(() => count() === 1);
    send(Buffer.concat([plain.subarray(0, 12), Buffer.from([0x81, 0, 0, 5]), plain.subarray(12)]));
    await sleep(SETTLE_MS);
    assert.equal(count(), 1);
  });

  test('a tag that the sender left to its interface is seen too', async (t) => {
    if (!requirePackage(t, 'python3')) return;
    const { nic, plain, count, send } = open();
    assert.ok(!nic.hidesTags);
    await tagAtFarEnd();
    send(plain);
    await sleep(SETTLE_MS);
    assert.equal(count(), 0);
    // As it would be without our care.
    setVlanOffload(FAR, 'transmit', true);
    assert.ok(nic.hidesTags);
    send(plain);
    await until(() => count() === 1);
  });

  test('offloads are as they were when the interface is given back', () => {
    const all = () => [getVlanOffload(NEAR, 'receive'), getVlanOffload(FAR, 'transmit')];
    assert.deepEqual(all(), [true, true]);
    const nic = XdpInterface.open(NEAR);
    assert.deepEqual(all(), [false, false]);
    nic.close();
    assert.deepEqual(all(), [true, true]);
    // What was off before stays off.
    setVlanOffload(FAR, 'transmit', false);
    XdpInterface.open(NEAR).close();
    assert.deepEqual(all(), [true, false]);
  });
});
