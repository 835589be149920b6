/**
 * The sender of `arrakis bench doorbell`: one packet at a time, with its time in it, until it is ended.
 *
 *   sender.js vnic SPEC ADDRESS   a VNIC of soft0, to the VNIC of soft0 with that address
 *   sender.js udp ADDRESS         a kernel UDP socket
 */
import { connect } from '../../src/arrakis/index.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import { isErrno } from '../../src/base/errors.ts';
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { writeFd } from '../../src/ffi/fd.ts';
import { connectUdp } from '../../src/ffi/inet.ts';
import { type EchoEndpoints, FRAME_LEN, requestTemplate } from '../echo/frame.ts';
import { nextPauseMs } from './pace.ts';
import { PAYLOAD_LEN, PORT, stampFrame, stampPayload } from './stamp.ts';

const SOURCE_PORT = 40_007;
/** VNICs of the software NIC have their address in their MAC. */
const SOFT_MAC = 0x0200_0000_0000;
const nap = new Int32Array(new SharedArrayBuffer(4));

function sendFrame(queue: NicQueue, template: Uint8Array): void {
  queue.reclaim(8);
  const frame = queue.alloc();
  if (frame === NO_FRAME) return;
  queue.memory.u8.set(template, frame);
  stampFrame(queue.memory.view, frame);
  if (queue.txBatch(Uint32Array.of(frame), Uint16Array.of(FRAME_LEN), 1) === 0) queue.free(frame);
  queue.kick();
}

async function overVnic(spec: string, destination: string): Promise<never> {
  const domain = await connect();
  const vnic = await domain.openVnic(spec);
  const destinationAddress = parseIpv4(destination);
  const endpoints: EchoEndpoints = {
    sourceMac: vnic.mac,
    destinationMac: SOFT_MAC + destinationAddress,
    sourceAddress: vnic.address,
    destinationAddress,
    sourcePort: SOURCE_PORT,
    destinationPort: PORT,
  };
  const template = new Uint8Array(requestTemplate(endpoints).buffer);
  for (let i = 0; ; i++) {
    Atomics.wait(nap, 0, 0, nextPauseMs(i));
    sendFrame(vnic.queue, template);
  }
}

function overUdp(address: string): never {
  const fd = connectUdp(parseIpv4(address), PORT);
  // The payload of the frame that VNICs send, from its magic on.
  const payload = Buffer.from(requestTemplate(NOBODY).buffer).subarray(FRAME_LEN - PAYLOAD_LEN);
  for (let i = 0; ; i++) {
    Atomics.wait(nap, 0, 0, nextPauseMs(i));
    stampPayload(payload);
    try {
      writeFd(fd, payload);
    } catch (error) {
      // A receiver that has just ended.
      if (!isErrno(error, 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH')) throw error;
    }
  }
}

const NOBODY: EchoEndpoints = {
  sourceMac: 0,
  destinationMac: 0,
  sourceAddress: 0,
  destinationAddress: 0,
  sourcePort: 0,
  destinationPort: 0,
};

const [way = '', first = '', second = ''] = process.argv.slice(2);
if (way === 'vnic') await overVnic(first, second);
else overUdp(first);
