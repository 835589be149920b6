import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArrakisError } from '../base/errors.ts';
import { formatVnicSpec, parseVnicSpec } from './vnic-spec.ts';

test('text and object are two forms of the same', () => {
  const cases: [string, object][] = [
    ['soft0', { device: 'soft0' }],
    ['soft0,ip=10.77.0.2/24', { device: 'soft0', address: 0x0a4d0002, prefix: 24 }],
    ['soft0,ip=10.77.0.2', { device: 'soft0', address: 0x0a4d0002 }],
    [
      'eth1,port=udp:7,port=tcp:80-90,mode=switched',
      {
        device: 'eth1',
        mode: 'switched',
        ports: [
          { protocol: 'udp', first: 7, last: 7 },
          { protocol: 'tcp', first: 80, last: 90 },
        ],
      },
    ],
    [
      'eth1,filter=udp dst port 7 and src net 10.1.0.0/16,filter=icmp',
      { device: 'eth1', filters: ['udp dst port 7 and src net 10.1.0.0/16', 'icmp'] },
    ],
    [
      'eth1.5,ip=10.0.0.2/24,gw=10.0.0.1,mode=direct,queue=3,name=web,frames=4096',
      {
        device: 'eth1.5',
        address: 0x0a000002,
        prefix: 24,
        gateway: 0x0a000001,
        mode: 'direct',
        queue: 3,
        name: 'web',
        frames: 4096,
      },
    ],
    [
      'soft0,rate=100M,pps=50k,weight=3',
      { device: 'soft0', bitsPerSecond: 1e8, packetsPerSecond: 50_000, weight: 3 },
    ],
  ];
  for (const [text, spec] of cases) {
    assert.deepEqual(parseVnicSpec(text), spec);
    assert.equal(formatVnicSpec(parseVnicSpec(text)), text);
  }
});

test('what is wrong is refused with the form as hint', () => {
  for (const text of [
    '',
    ',ip=10.0.0.1',
    'a b',
    'soft0,',
    'soft0,ip=10.0.0.300',
    'soft0,ip=10.0.0.1/33',
    'soft0,gw=x',
    'eth1,port=icmp:7',
    'eth1,port=udp:70000',
    'eth1,port=udp:9-7',
    'eth1,port=udp',
    'eth1,mode=fast',
    'eth1,queue=-1',
    'eth1,queue=',
    'soft0,rate=0',
    'soft0,rate=-1M',
    'soft0,rate=NaN',
    'soft0,rate=999',
    'soft0,rate=2000G',
    'soft0,pps=0',
    'soft0,pps=0.5',
    'soft0,weight=0',
    'soft0,weight=101',
    'soft0,frames=1000',
    'soft0,frames=128',
    'soft0,frames=131072',
    'soft0,name=a/b',
    'soft0,colour=red',
    `${'x'.repeat(40)}`,
  ]) {
    assert.throws(
      () => parseVnicSpec(text),
      (error) =>
        error instanceof ArrakisError &&
        error.code === 'ARK_BAD_ARGUMENT' &&
        error.hint !== undefined,
      text,
    );
  }
});
