/** Which handler serves which operation, and who may call it. */
import { ArrakisError } from '../base/errors.ts';
import type { Call, Handler, Outcome } from './handler.ts';
import * as cap from './objects/capability.ts';
import * as capture from './objects/capture.ts';
import * as device from './objects/device.ts';
import * as domain from './objects/domain.ts';
import * as endpoint from './objects/endpoint-operations.ts';
import * as filter from './objects/filter.ts';
import * as name from './objects/name.ts';
import * as network from './objects/network.ts';
import * as placement from './objects/placement.ts';
import * as policy from './objects/policy.ts';
import * as rate from './objects/rate.ts';
import * as region from './objects/region-share.ts';
import * as views from './objects/views.ts';
import * as vnic from './objects/vnic-operations.ts';
import type { ControlPlane } from './plane.ts';
import { OPERATIONS, type Operation, type Request } from './protocol.ts';

const HANDLERS: { [O in Operation]: Handler<O, unknown> } = {
  hello: domain.hello,
  'domain.prepare': domain.prepare,
  'vnic.open': vnic.open,
  'vnic.close': vnic.close,
  'vnic.listen': vnic.listen,
  'filter.add': filter.add,
  'filter.replace': filter.replace,
  'filter.remove': filter.remove,
  'filter.set': filter.set,
  'rate.set': rate.setRate,
  'doorbell.set': rate.setDoorbell,
  list: views.list,
  stats: views.stats,
  'device.list': device.list,
  'device.add': device.add,
  'cap.list': cap.list,
  'cap.derive': cap.derive,
  'cap.copy': cap.copy,
  'cap.grant': cap.grant,
  'cap.mint': cap.mint,
  'cap.revoke': cap.revoke,
  'cap.delete': cap.remove,
  'capture.start': capture.start,
  'capture.stop': capture.stop,
  'region.create': region.create,
  'region.open': region.open,
  'endpoint.create': endpoint.create,
  'endpoint.connect': endpoint.connect,
  'endpoint.accept': endpoint.accept,
  'endpoint.leave': endpoint.leave,
  'endpoint.close': endpoint.close,
  'name.make': name.make,
  'name.bind': name.bind,
  'name.lookup': name.lookup,
  'name.list': name.list,
  'name.remove': name.remove,
  'name.watch': name.watch,
  'name.unwatch': name.unwatch,
  'name.serve': name.serve,
  'name.answer': name.answer,
  'network.read': network.read,
  'network.resolve': network.resolve,
  'policy.reload': policy.reload,
  'placement.place': placement.place,
  'placement.move': placement.move,
  shutdown: views.shutdown,
};

/** Decode, then invoke. Rejects with whatever either throws. */
export async function perform<O extends Operation>(
  plane: ControlPlane,
  call: Call,
  request: Request<O>,
): Promise<Outcome<O>> {
  const { op, args } = request;
  checkCaller(call, op);
  const { decode, invoke } = HANDLERS[op];
  try {
    const plan = decode(plane, call, args);
    return await invoke(plane, plan, call);
  } finally {
    // Decoding may have opened an interface to look at it; without a VNIC on it by now it is let go.
    plane.devices.sweep();
  }
}

function checkCaller({ peer }: Call, op: Operation): void {
  const { caller } = OPERATIONS[op];
  if (caller === 'anyone') return;
  if (peer.domain === null) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `${op} before hello`, { hint: 'say hello first' });
  }
  if (caller === 'privileged' && !peer.domain.privileged) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `${op} is for root and the daemon's own user`, {
      hint: peer.domain.prepared
        ? 'a prepared domain has its VNICs and nothing else'
        : 'run the command by sudo',
    });
  }
}
