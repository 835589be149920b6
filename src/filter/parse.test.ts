import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { complement, EVERYTHING, equals, type Filter, NOTHING, union, within } from './boxes.ts';
import { FilterBuilder, filter } from './build.ts';
import { formatFilter } from './format.ts';
import { FILTER_LIMITS } from './limits.ts';
import { FilterSyntaxError, parseFilter } from './parse.ts';

const A = '10.9.0.2';
const B = '10.9.0.3';

/** What each text means, said by the builder, and its canonical form. */
const MEANINGS: [text: string, meaning: Filter, canonical: string][] = [
  ['any', filter, 'any'],
  ['ip', filter, 'any'],
  ['udp', filter.udp(), 'udp'],
  ['tcp', filter.tcp(), 'tcp'],
  ['icmp', filter.icmp(), 'icmp'],
  ['ip proto 47', filter.protocol(47), 'ip proto 47'],
  ['proto udp', filter.udp(), 'udp'],
  ['ip proto 18-255', filter.protocol(18, 255), 'ip proto 18-255'],
  [`dst host ${A}`, filter.dstHost(A), `dst host ${A}`],
  [`dst ${A}`, filter.dstHost(A), `dst host ${A}`],
  [
    `udp dst port 7 and dst host ${A}`,
    filter.udp().dstPort(7).dstHost(A),
    `udp and dst host ${A} and dst port 7`,
  ],
  [`src net 10.0.0.0/8`, filter.srcNet('10.0.0.0/8'), 'src net 10.0.0.0/8'],
  [`src net 10.0.0.0 mask 255.0.0.0`, filter.srcNet('10.0.0.0/8'), 'src net 10.0.0.0/8'],
  ['dst net 0.0.0.0/0', filter, 'any'],
  [`tcp src portrange 80-90`, filter.tcp().srcPort(80, 90), 'tcp and src portrange 80-90'],
  [
    `src hostrange 10.0.0.1-10.0.0.9`,
    within({ source: [0x0a000001, 0x0a000009] }),
    'src hostrange 10.0.0.1-10.0.0.9',
  ],
  [
    'udp and not portrange 0-65535',
    filter.udp().and(filter.port(0, 65535).not()),
    'udp and not portrange 0-65535',
  ],
  [
    'udp and dst portrange 0-65535',
    filter.udp().dstPort(0, 65535),
    'udp and dst portrange 0-65535',
  ],
  [
    'udp and src portrange 0-65535',
    filter.udp().dstPort(0, 65535),
    'udp and dst portrange 0-65535',
  ],
  ['src port 1 and tcp', filter.tcp().srcPort(1), 'tcp and src port 1'],
  [
    'src and dst port 5 and udp',
    filter.udp().srcPort(5).dstPort(5),
    'udp and src port 5 and dst port 5',
  ],
  [
    `src or dst host ${A} and dst ${B}`,
    filter.host(A).dstHost(B),
    `src host ${A} and dst host ${B}`,
  ],
  ['udp or tcp', filter.udp().or(filter.tcp()), 'tcp or udp'],
  ['not udp', filter.udp().not(), 'ip proto 0-16 or ip proto 18-255'],
  ['! udp && ! ip proto 0-16', filter.protocol(18, 255), 'ip proto 18-255'],
  [
    'udp dst port 7 or 9',
    filter.udp().dstPort(7).or(filter.udp().dstPort(9)),
    '(udp and dst port 7) or (udp and dst port 9)',
  ],
  ['udp dst port 7 or 8', filter.udp().dstPort(7, 8), 'udp and dst portrange 7-8'],
  [`dst host ${A} or ${B}`, filter.dstHost(A).or(filter.dstHost(B)), 'dst net 10.9.0.2/31'],
  ['not not udp', filter.udp(), 'udp'],
  ['((udp))', filter.udp(), 'udp'],
  ['dst port 53', filter.dstPort(53), '(tcp and dst port 53) or (udp and dst port 53)'],
];

for (const [text, meaning, canonical] of MEANINGS) {
  test(`reads ${text}`, () => {
    const parsed = parseFilter(text);
    assert.deepEqual(parsed.boxes, meaning.boxes);
    assert.equal(formatFilter(parsed), canonical);
    assert.deepEqual(parseFilter(canonical).boxes, parsed.boxes);
  });
}

test('and, or have the same precedence and go from the left, as in tcpdump', () => {
  const left = filter.udp().or(filter.tcp()).dstHost(A);
  assert.ok(equals(parseFilter(`udp or tcp and dst host ${A}`), left));
  const right = filter.udp().or(filter.tcp().dstHost(A));
  assert.ok(equals(parseFilter(`udp or (tcp and dst host ${A})`), right));
  assert.equal(equals(left, right), false);
});

test('not binds to what follows it only', () => {
  assert.ok(equals(parseFilter('not udp and src port 5'), filter.tcp().srcPort(5)));
});

test('without a side it is either', () => {
  const either = filter.udp().srcPort(53).or(filter.udp().dstPort(53));
  assert.ok(equals(parseFilter('udp port 53'), either));
  assert.ok(equals(parseFilter(`host ${A}`), filter.srcHost(A).or(filter.dstHost(A))));
  assert.ok(equals(parseFilter('net 10.0.0.0/8'), filter.net('10.0.0.0/8')));
});

test('the filter of the documentation', () => {
  const built = filter.udp().dstPort(11211).and(filter.host(A));
  assert.ok(equals(parseFilter(`udp dst port 11211 and host ${A}`), built));
  assert.equal(
    String(filter.udp().dstPort(11211).dstHost(A)),
    `udp and dst host ${A} and dst port 11211`,
  );
  assert.equal(JSON.stringify({ f: filter.udp() }), '{"f":"udp"}');
});

describe('what is wrong is shown where it is', () => {
  for (const [text, position, message] of [
    ['', 0, /is empty/],
    ['   ', 3, /is empty/],
    ['udp dst port', 12, /a port, a number, is expected, and the filter ends/],
    ['udp dst port and host 1.2.3.4', 13, /a port, a number, is expected, and there is "and"/],
    ['udp dst port 70000', 13, /at most 65535/],
    ['port 5-7', 5, /is a range/],
    ['portrange 9-7', 10, /9 is above 7/],
    ['udp and', 7, /the filter ends/],
    ['and udp', 0, /there is "and"/],
    ['(udp', 4, /"\)" is expected/],
    ['udp)', 3, /does not continue/],
    ['udp tcp', 4, /"tcp" does not continue/],
    ['host 10.9.0.300', 5, /not an IPv4 address/],
    ['dst', 3, /an address is expected/],
    ['net 10.0.0.1/8', 4, /bits beyond its prefix/],
    ['net 10.0.0.0/33', 4, /no valid prefix/],
    ['net 10.0.0.0', 4, /no prefix length/],
    ['net 10.0.0.0 mask 255.0.255.0', 4, /no network mask/],
    ['hostrange 10.0.0.9-10.0.0.1', 10, /is above/],
    ['ip proto 256', 9, /at most 255/],
    ['arp', 0, /not of this language/],
    ['udp $ 5', 4, /"\$" has no meaning/],
    ['udp \u{1f600}', 4, /has no meaning/],
    ['5', 0, /a number|address/],
    ['constructor', 0, /is expected/],
    ['not', 3, /the filter ends/],
    ['udp dst port 7 or 9 or', 22, /the filter ends/],
  ] as const) {
    test(JSON.stringify(text), () => {
      assert.throws(
        () => parseFilter(text),
        (error: FilterSyntaxError) => {
          assert.ok(error instanceof FilterSyntaxError);
          assert.match(error.message, message);
          assert.equal(error.position, position);
          assert.equal(error.code, 'ARK_BAD_ARGUMENT');
          const caret = error.message.split('\n').at(-1)!;
          assert.equal(caret, `  ${' '.repeat(position)}^`);
          return true;
        },
      );
    });
  }

  test('in a long line a window of it is shown', () => {
    const text = `${'udp and '.repeat(100)}nonsense and udp${' and udp'.repeat(50)}`;
    assert.throws(
      () => parseFilter(text),
      (error: FilterSyntaxError) => {
        const [, line, caret] = error.message.split('\n');
        assert.ok(line!.length < 80);
        assert.equal(line!.slice(caret!.indexOf('^')).startsWith('nonsense'), true);
        return true;
      },
    );
  });
});

test('a filter that matches nothing is refused', () => {
  for (const text of ['udp and tcp', 'icmp port 7', 'not any', `dst host ${A} and dst host ${B}`]) {
    assert.throws(() => parseFilter(text), /no packet matches/);
  }
});

test('limits: boxes, characters, depth', () => {
  const many = Array.from({ length: FILTER_LIMITS.boxesMax }, (_, i) => `udp dst port ${2 * i}`);
  assert.equal(parseFilter(many.join(' or ')).boxes.length, FILTER_LIMITS.boxesMax);
  const code = { code: 'ARK_LIMIT' };
  assert.throws(() => parseFilter([...many, 'tcp dst port 9'].join(' or ')), code);
  assert.throws(() => parseFilter(' '.repeat(FILTER_LIMITS.textMax + 1)), code);
  const deep = FILTER_LIMITS.depthMax - 1;
  assert.equal(parseFilter(`${'('.repeat(deep)}udp${')'.repeat(deep)}`).boxes.length, 1);
  assert.throws(() => parseFilter(`${'('.repeat(deep + 1)}udp${')'.repeat(deep + 1)}`), /inside/);
  assert.throws(() => parseFilter(`${'not '.repeat(deep + 1)}udp`), /inside/);
});

test('an expression as long as there may be is read or refused soon, whatever it says', () => {
  const fill = (term: (i: number) => string, by: string): string => {
    let text = term(0);
    for (let i = 1; text.length + 60 < FILTER_LIMITS.textMax; i++) text += `${by}${term(i)}`;
    return text;
  };
  const hostile = [
    fill((i) => `udp dst port ${2 * i}`, ' or '),
    fill((i) => `host 10.0.${i % 256}.1`, ' or '),
    fill((i) => `not (net 10.${i % 256}.0.0/16 and port ${i})`, ' and '),
    fill((i) => `(src portrange ${i}-${60000 - i} and dst portrange ${i}-${50000 - i})`, ' or '),
    fill((i) => (i % 2 === 0 ? `portrange ${i}-${65535 - i}` : `not port ${i}`), ' and '),
  ];
  let refused = 0;
  for (const text of hostile) {
    const started = performance.now();
    try {
      parseFilter(text);
    } catch (error) {
      assert.equal((error as { code: string }).code, 'ARK_LIMIT');
      refused++;
    }
    assert.ok(performance.now() - started < 5000, text.slice(0, 80));
  }
  assert.ok(refused >= 3, `${refused} refused`);
});

test('canonical text of as many boxes as there may be is not too long to be read', () => {
  let all: Filter = NOTHING;
  for (let i = 0; i < FILTER_LIMITS.boxesMax; i++) {
    all = union(
      all,
      within({
        protocol: [17, 17],
        source: [0xc0a80000 + i, 0xf0f0f000 + i],
        destination: [0xf0a80000 + 2 * i, 0xf0a80000 + 2 * i],
        sourcePort: [10000 + i, 60000 + i],
        destinationPort: [10000 + i, 60000 + i],
      }),
    );
  }
  const text = formatFilter(all);
  assert.ok(text.length < FILTER_LIMITS.textMax, `${text.length}`);
  assert.ok(equals(parseFilter(text), all));
});

test('random filters survive the way through text', () => {
  const random = new Random(0x7e87);
  const address = (): number => 0x0a090000 + random.below(16);
  for (let i = 0; i < 1000; i++) {
    let f: FilterBuilder = new FilterBuilder(NOTHING);
    for (let n = random.below(3) + 1; n > 0; n--) {
      let one: FilterBuilder = filter;
      if (random.oneIn(2)) one = one.protocol(random.pick([1, 6, 17, 47]));
      if (random.oneIn(2)) one = one.dstHost(address());
      if (random.oneIn(3)) one = one.srcNet(`10.${random.below(4)}.0.0/16`);
      if (random.oneIn(3)) one = one.dstPort(random.below(100), 100 + random.below(100));
      if (random.oneIn(4)) one = one.srcPort(random.below(65536));
      f = f.or(random.oneIn(4) ? one.not() : one);
    }
    const text = formatFilter(f);
    if (f.boxes.length === 0 || f.boxes.length > FILTER_LIMITS.boxesMax) continue;
    assert.equal(formatFilter(parseFilter(text)), text);
    assert.deepEqual(parseFilter(text).boxes, f.boxes, text);
  }
  assert.ok(equals(complement(NOTHING), EVERYTHING));
});

test('random words never do anything but parse or refuse', () => {
  const random = new Random(0x3a7b);
  const words = [
    'udp',
    'tcp',
    'ip',
    'proto',
    'not',
    'and',
    'or',
    '(',
    ')',
    'src',
    'dst',
    'host',
    'net',
    'port',
  ];
  words.push(
    'portrange',
    'hostrange',
    'any',
    '7',
    '80-90',
    A,
    '10.0.0.0/8',
    '!',
    '&&',
    '||',
    'mask',
  );
  let parsed = 0;
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from({ length: 1 + random.below(8) }, () => random.pick(words)).join(' ');
    try {
      const f = parseFilter(text);
      assert.ok(equals(parseFilter(formatFilter(f)), f));
      parsed++;
    } catch (error) {
      assert.match((error as { code: string }).code, /^ARK_(BAD_ARGUMENT|LIMIT)$/, text);
    }
  }
  assert.ok(parsed > 100);
});
