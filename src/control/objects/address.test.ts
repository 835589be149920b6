import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../../test/support/random.ts';
import { parseIpv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { Filter } from '../../filter/boxes.ts';
import { filter } from '../../filter/build.ts';
import { type AddressInterval, firstFree } from '../caps/authority.ts';
import type { NicDevice } from '../devices/device.ts';
import { parseVnicSpec } from '../vnic-spec.ts';
import { type Claim, checkClaims, planAddress } from './address.ts';

const soft = {
  name: 'soft0',
  address: parseIpv4('10.77.0.1'),
  prefix: 29,
  gateway: parseIpv4('10.77.0.1'),
  sharesAddress: false,
  assignsAddresses: true,
} as NicDevice;
const eth = {
  name: 'eth1',
  address: parseIpv4('10.0.0.5'),
  prefix: 24,
  gateway: parseIpv4('10.0.0.1'),
  sharesAddress: true,
  assignsAddresses: false,
} as NicDevice;

const plan = (text: string, device: NicDevice, claims: Claim[] = []) =>
  planAddress(parseVnicSpec(text), device, claims);
const claim = (device: string, ...filters: Filter[]): Claim => ({
  device,
  name: 'other',
  ownerText: 'web (pid 7)',
  filters,
});
/** As the plan has it: without the builder's methods. */
const plain = ({ boxes }: Filter): Filter => ({ boxes });
const any = (ip: string): Filter => plain(filter.dstHost(ip));
const udp = (ip: string, first: number, last = first): Filter =>
  plain(filter.udp().dstHost(ip).dstPort(first, last));
const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;

test('soft0 gives out the next free address, until there is none', () => {
  const claims: Claim[] = [];
  for (const last of [2, 3, 4, 5, 6]) {
    const { address, ownsAddress, filters, gateway, prefix } = plan('soft0', soft, claims);
    assert.equal(address, parseIpv4(`10.77.0.${last}`));
    assert.ok(ownsAddress);
    assert.equal(gateway, soft.address);
    assert.equal(prefix, 29);
    assert.deepEqual(filters, [any(`10.77.0.${last}`)]);
    claims.push(claim('soft0', ...filters));
  }
  assert.throws(() => plan('soft0', soft, claims), code('ARK_LIMIT'));
});

test('an address elsewhere has no use for the gateway of the device', () => {
  assert.equal(plan('soft0,ip=192.168.1.2/24', soft).gateway, 0);
  assert.equal(plan('soft0,ip=192.168.1.2/24,gw=192.168.1.1', soft).gateway, 0xc0a80101);
});

test('an interface shares its address by port, and only so', () => {
  const { address, ownsAddress, filters } = plan('eth1,port=udp:7', eth);
  assert.equal(address, eth.address);
  assert.equal(ownsAddress, false);
  assert.deepEqual(filters, [udp('10.0.0.5', 7)]);
  assert.deepEqual(plan('eth1,ip=10.0.0.5,port=udp:7', eth).filters, filters);
  assert.throws(() => plan('eth1', eth), code('ARK_BAD_ARGUMENT'));
  assert.throws(() => plan('eth1,ip=10.0.0.5', eth), code('ARK_BAD_ARGUMENT'));
  assert.throws(() => plan('eth1,port=udp:7', { ...eth, address: 0 }), code('ARK_BAD_ARGUMENT'));
});

test('a shared address is shared by any filter that leaves something of it', () => {
  const text = 'udp dst port 7 and src net 10.1.0.0/16';
  const own = plain(filter.udp().dstHost('10.0.0.5').dstPort(7).srcNet('10.1.0.0/16'));
  assert.deepEqual(plan(`eth1,filter=${text}`, eth).filters, [own]);
  assert.deepEqual(plan(`eth1,filter=${text} and dst host 10.0.0.5`, eth).filters, [own]);
  assert.deepEqual(plan(`eth1,port=tcp:9,filter=${text}`, eth).filters.length, 2);
  for (const wrong of [
    'any',
    'dst host 10.0.0.5',
    'udp dst host 10.0.0.6',
    'udp dst',
    'udp and tcp',
  ]) {
    assert.throws(() => plan(`eth1,filter=${wrong}`, eth), code('ARK_BAD_ARGUMENT'), wrong);
  }
  assert.throws(() => plan(`eth1,ip=10.0.0.9,filter=${text}`, eth), code('ARK_BAD_ARGUMENT'));
});

test('another address on an interface belongs to the VNIC whole', () => {
  const { ownsAddress, filters, gateway } = plan('eth1,ip=10.0.0.9/24', eth);
  assert.ok(ownsAddress);
  assert.deepEqual(filters, [any('10.0.0.9')]);
  assert.equal(gateway, eth.gateway);
  assert.throws(() => plan('eth1,ip=10.0.0.9,port=udp:7', eth), code('ARK_BAD_ARGUMENT'));
});

test('what is not a host, or is the host, is refused', () => {
  for (const ip of ['0.0.0.1', '127.0.0.1', '224.0.0.1', '255.255.255.255']) {
    assert.throws(() => plan(`soft0,ip=${ip}`, soft), code('ARK_BAD_ARGUMENT'), ip);
  }
  assert.throws(() => plan('soft0,ip=10.77.0.1', soft), code('ARK_IN_USE'));
});

test('overlapping filters name the owner, on the same device only', () => {
  const taken = [claim('eth1', udp('10.0.0.5', 80, 90))];
  assert.throws(() => plan('eth1,port=udp:85', eth, taken), /VNIC other of web \(pid 7\)/);
  assert.throws(() => plan('eth1,port=udp:70-80', eth, taken), code('ARK_IN_USE'));
  plan('eth1,port=udp:91', eth, taken);
  plan('eth1,port=tcp:85', eth, taken);
  plan('eth1,port=udp:85', eth, [claim('eth2', udp('10.0.0.5', 85))]);
  checkClaims([udp('10.0.0.5', 85)], 'eth1', taken, 'other');
});

test('owners of the same port are told apart by sources, and an address is taken when any of it is', () => {
  const near = plain(filter.udp().dstHost('10.0.0.5').dstPort(85).srcNet('10.1.0.0/16'));
  const far = plain(filter.udp().dstHost('10.0.0.5').dstPort(85).srcNet('10.2.0.0/16'));
  checkClaims([near], 'eth1', [claim('eth1', far)], null);
  assert.throws(() => plan('eth1,port=udp:85', eth, [claim('eth1', far)]), code('ARK_IN_USE'));
  const taken = claim('soft0', plain(filter.tcp().dstNet('10.77.0.0/30').srcPort(1)));
  assert.equal(plan('soft0', soft, [taken]).address, parseIpv4('10.77.0.4'));
});

test('a network that is full is seen at once, however large', () => {
  const wide = { ...soft, address: parseIpv4('10.0.0.1'), prefix: 8 } as NicDevice;
  const halves = [plain(filter.dstNet('10.0.0.0/9')), plain(filter.dstNet('10.128.0.0/9'))];
  const startedMs = performance.now();
  assert.throws(() => plan('soft0', wide, [claim('soft0', ...halves)]), code('ARK_LIMIT'));
  const [lower] = halves;
  assert.equal(plan('soft0', wide, [claim('soft0', lower!)]).address, parseIpv4('10.128.0.0'));
  assert.ok(performance.now() - startedMs < 50, 'nobody counts 16 million addresses');
});

test('the first free address is the one that counting finds', () => {
  const random = new Random(7);
  const intervals = (): AddressInterval[] =>
    Array.from({ length: random.below(4) }, () => {
      const first = random.below(40);
      return { first, last: first + random.below(12) };
    }).sort((a, b) => a.first - b.first);
  for (let n = 0; n < 2000; n++) {
    const [allowed, taken] = [intervals(), intervals()];
    const isIn = (list: AddressInterval[], at: number) =>
      list.some(({ first, last }) => first <= at && at <= last);
    const counted = Array.from({ length: 30 }, (_, i) => i + 5).find(
      (at) => isIn(allowed, at) && !isIn(taken, at),
    );
    assert.equal(firstFree(allowed, 5, 34, taken), counted ?? null);
  }
});
