import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpv4 } from '../../base/address.ts';
import type { Filter } from '../../filter/boxes.ts';
import { filterOfRange } from '../../filter/coverage.ts';
import { formatFilter } from '../../filter/format.ts';
import { parseFilter } from '../../filter/parse.ts';
import { FLOW_KEYS_PER_VNIC_MAX, type FlowPlan, planFlows } from './flows.ts';

const HERE = parseIpv4('10.0.0.2');
const filter = (
  protocol: 'any' | 'udp' | 'tcp' | 'icmp',
  portFirst = 0,
  portLast = portFirst === 0 ? 65535 : portFirst,
): Filter => filterOfRange({ protocol, first: HERE, last: HERE, portFirst, portLast });

const plan = (...filters: (Filter | string)[]): FlowPlan =>
  planFlows(
    { name: 'v', id: 0x0102, kind: 'switched', queue: 0, queues: 1 },
    filters.map((f) => (typeof f === 'string' ? parseFilter(f) : f)),
  );

/** Keys without the one per address that marks it as present (scope 2), when nothing is left to the programs. */
function flowKeys(...filters: (Filter | string)[]): string[] {
  const { keys, compiled, whole } = plan(...filters);
  assert.equal(compiled, null);
  assert.deepEqual(whole, []);
  return [...keys.keys()].filter((key) => !key.endsWith('02')).sort();
}

/** What is left to the programs, as text. */
const compiledOf = (...filters: (Filter | string)[]): string => {
  const { compiled } = plan(...filters);
  return compiled === null ? '' : formatFilter(compiled);
};

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

  test('all ports of a protocol are one key, and what shows none another', () => {
    const ports = '0a000002' + '0000' + '06' + '00';
    assert.deepEqual(flowKeys('tcp dst portrange 0-65535 and dst host 10.0.0.2'), [ports]);
    assert.deepEqual(flowKeys(filter('tcp')), [ports, '0a000002' + '0000' + '06' + '03']);
  });

  test('a protocol without ports and the whole address are one key each', () => {
    assert.deepEqual(flowKeys(filter('icmp')), ['0a000002' + '0000' + '01' + '03']);
    assert.deepEqual(flowKeys('ip proto 0 and dst host 10.0.0.2'), [
      '0a000002' + '0000' + '00' + '03',
    ]);
    assert.deepEqual(flowKeys(filter('any')), ['0a000002' + '0000' + '00' + '00']);
  });

  test('port 0 alone is not all ports', () => {
    assert.deepEqual(flowKeys(filter('udp', 0, 0)), ['0a000002' + '0000' + '11' + '01']);
  });

  test('what filters share is there once', () => {
    assert.equal(flowKeys(filter('udp', 1, 10), filter('udp', 5, 15)).length, 15);
  });

  test('an alternative is the keys of both', () => {
    assert.equal(flowKeys('dst host 10.0.0.2 and (udp dst port 7 or 9 or icmp)').length, 3);
    assert.equal(flowKeys('dst host 10.0.0.2 or 10.0.0.4').length, 2);
  });

  test('each address is marked for its VNIC, whose id the program reads in machine order', () => {
    const { keys } = plan(filter('udp', 7), filter('udp', 8));
    assert.deepEqual(
      [...keys.keys()].filter((key) => key.endsWith('02')),
      ['0a000002' + '0201' + '00' + '02'],
    );
  });
});

describe('what is no key is left to the programs', () => {
  for (const text of [
    'udp and src host 10.9.9.9 and dst host 10.0.0.2 and dst port 7',
    'dst net 10.0.0.0/24',
    'udp and dst host 10.0.0.2 and src port 7',
    'udp',
  ]) {
    test(text, () => {
      assert.equal(compiledOf(text), text);
      assert.equal(plan(text).keys.size, 0);
    });
  }

  test('of an alternative only the part that is none', () => {
    const host = 'dst host 10.0.0.2 and udp';
    const mixed = `${host} and (dst port 7 or (dst port 9 and src net 10.0.0.0/8))`;
    assert.equal(
      compiledOf(mixed),
      'udp and src net 10.0.0.0/8 and dst host 10.0.0.2 and dst port 9',
    );
    assert.equal(plan(mixed).keys.size, 2, 'port 7, and the mark of the address');
  });

  test('ports beyond as many keys as a VNIC may have', () => {
    assert.equal(flowKeys(filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX)).length, FLOW_KEYS_PER_VNIC_MAX);
    assert.equal(
      compiledOf(filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX), filter('tcp', 1)),
      formatFilter(filter('tcp', 1)),
    );
    const wide = filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX + 1);
    assert.equal(compiledOf(wide), formatFilter(wide));
  });

  test('the same flows over and over cost no more than twice', () => {
    const same = new Array(64).fill(filter('udp', 1, FLOW_KEYS_PER_VNIC_MAX));
    const { keys, compiled } = plan(...same);
    assert.equal(keys.size, FLOW_KEYS_PER_VNIC_MAX + 1);
    assert.equal(compiled?.boxes.length, 62, 'beyond some, no more keys are made');
  });

  test('addresses that are had whole, when no key says it', () => {
    assert.deepEqual(plan('dst net 10.0.0.0/30').whole, [[0x0a000000, 0x0a000003]]);
    assert.deepEqual(plan('dst host 10.0.0.2 or 10.0.0.3').whole, [[0x0a000002, 0x0a000003]]);
    assert.deepEqual(plan('dst host 10.0.0.2', 'dst host 10.0.0.3').whole, []);
    const halves = ['dst host 10.0.0.2 and udp', 'dst host 10.0.0.2 and not udp'];
    assert.deepEqual(plan(...halves).whole, [[HERE, HERE]]);
  });
});
