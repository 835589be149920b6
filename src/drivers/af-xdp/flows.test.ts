import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpv4 } from '../../base/address.ts';
import type { FlowFilter } from '../../device/filter.ts';
import { expandFilters, FLOW_KEYS_PER_VNIC_MAX } from './flows.ts';

const filter = (
  protocol: FlowFilter['protocol'],
  portFirst = 0,
  portLast = portFirst === 0 ? 65535 : portFirst,
  address = '10.0.0.2',
): FlowFilter => ({ protocol, address: parseIpv4(address), portFirst, portLast });

/** Keys without the one per address that marks it as present (scope 2). */
const flowKeys = (...filters: FlowFilter[]): string[] =>
  [...expandFilters(filters, 0).keys()].filter((key) => !key.endsWith('02')).sort();

const codeOf = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

describe('keys of the flow table: address, port, protocol, scope', () => {
  test('one port', () => {
    assert.deepEqual(flowKeys(filter('udp', 7)), ['0a000002' + '0007' + '11' + '01']);
    assert.deepEqual(flowKeys(filter('tcp', 443)), ['0a000002' + '01bb' + '06' + '01']);
  });

  test('a range is one key per port', () => {
    assert.deepEqual(flowKeys(filter('udp', 255, 257)), [
      '0a000002' + '00ff' + '11' + '01',
      '0a000002' + '0100' + '11' + '01',
      '0a000002' + '0101' + '11' + '01',
    ]);
  });

  test('all ports, ICMP and the whole address are one key each', () => {
    assert.deepEqual(flowKeys(filter('tcp')), ['0a000002' + '0000' + '06' + '00']);
    assert.deepEqual(flowKeys(filter('icmp')), ['0a000002' + '0000' + '01' + '00']);
    assert.deepEqual(flowKeys(filter('any')), ['0a000002' + '0000' + '00' + '00']);
  });

  test('port 0 alone is not all ports', () => {
    assert.deepEqual(flowKeys(filter('udp', 0, 0)), ['0a000002' + '0000' + '11' + '01']);
  });

  test('what filters share is there once', () => {
    assert.equal(flowKeys(filter('udp', 1, 10), filter('udp', 5, 15)).length, 15);
  });

  test('each address is marked for its VNIC, whose id the program reads in machine order', () => {
    const keys = expandFilters([filter('udp', 7), filter('udp', 8)], 0x0102);
    assert.deepEqual(
      [...keys.keys()].filter((key) => key.endsWith('02')),
      ['0a000002' + '0201' + '00' + '02'],
    );
  });
});

describe('filters that are refused', () => {
  test('more flows than a VNIC may have', () => {
    assert.equal(flowKeys(filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX)).length, FLOW_KEYS_PER_VNIC_MAX);
    const tooMany = [filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX), filter('tcp', 1)];
    assert.throws(() => expandFilters(tooMany, 0), codeOf('ARK_LIMIT'));
  });

  test('the same flows over and over, before a key of them is made', () => {
    const same = new Array(64).fill(filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX));
    assert.throws(() => expandFilters(same, 0), codeOf('ARK_LIMIT'));
  });

  test('ports that are none', () => {
    for (const [first, last] of [
      [9, 8],
      [-1, 5],
      [1, 65536],
      [1.5, 2],
    ]) {
      assert.throws(
        () => expandFilters([filter('udp', first!, last!)], 0),
        codeOf('ARK_BAD_ARGUMENT'),
      );
    }
  });
});
