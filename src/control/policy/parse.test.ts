/** Files that people write, right and wrong: what is given, and each problem with its place. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ArrakisError } from '../../base/errors.ts';
import type { AddressRange, RateRange } from '../caps/range.ts';
import { allRights, RIGHTS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import type { PolicyEnvironment } from './environment.ts';
import { formatPolicy } from './format.ts';
import { parsePolicy } from './parse.ts';
import { keyOf, Policy, type PolicyPeer, type Rule } from './policy.ts';
import { policyError } from './problem.ts';
import { UserDatabase } from './users.ts';

const users = new UserDatabase(
  'root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:1000:::\nbroken\n',
  'staff:x:1000:\nweb:x:33:alice,carol\n',
);
const environment: PolicyEnvironment = {
  users,
  processors: 4,
  device: (name) => {
    if (name === 'soft0') return [{ first: 0x0a4d0000, last: 0x0a4d00ff }];
    return name === 'eth0' ? [] : null;
  },
  program: (path) => {
    if (path === '/bin/link') return { linkTo: '/usr/bin/real' };
    if (path === '/tmp/open') return 'writable';
    return path === '/usr/bin/web' ? 'ok' : 'absent';
  },
};

const nobody: PolicyPeer = { uid: 4242, gid: 4242, groups: [], exe: null };
const alice: PolicyPeer = { uid: 1000, gid: 1000, groups: [], exe: null };

function parse(text: string): Policy {
  const { policy, problems } = parsePolicy(text, environment);
  assert.ok(policy, JSON.stringify(problems));
  return policy;
}

/** `line:column severity message` of each problem. */
const problemsOf = (text: string): string[] =>
  parsePolicy(text, environment).problems.map(
    ({ line, column, severity, message }) => `${line}:${column} ${severity} ${message}`,
  );

const everyPort = { portFirst: 0, portLast: 65535 };

describe('what is given', () => {
  test('nothing by default', () => {
    for (const text of ['', '# nothing\n', '{}', 'users: {}', '---\n']) {
      const policy = parse(text);
      assert.deepEqual(policy.policyFor(alice), []);
      assert.equal(policy.vnicsFor(alice), null);
    }
    assert.deepEqual(parse('users: {bob: {devices: [soft0]}}').policyFor(alice), []);
  });

  test('every kind', () => {
    const policy = parse(`
users:
  alice:
    vnics: 3
    devices: [soft0, {name: eth0, direct: true}]
    addresses:
      - 10.77.0.16/28
      - {range: 10.77.0.2-10.77.0.3, device: soft0, protocol: udp, ports: "7, 5000-5010"}
    rate: {bits: 2.5G, packets: 100k, weight: 3}
    cores: 1-2,0
    pools: {nvme0: 10GiB}
    names: {/app/web: write, /net: read}
`);
    const { open, direct } = RIGHTS.device;
    const { list, lookup, watch } = RIGHTS.directory;
    const udp = { first: 0x0a4d0002, last: 0x0a4d0003, protocol: 'udp' };
    const give = (kind: string, object: string, rights: number, range: object | null) => ({
      ...{ kind, object, rights, range },
    });
    const most = allRights('directory') & ~RIGHTS.directory.grant;
    assert.deepEqual(policy.policyFor(alice), [
      give('device', 'soft0', open, null),
      give('device', 'eth0', open | direct, null),
      give('addresses', '*', 2, {
        ...{ first: 0x0a4d0010, last: 0x0a4d001f, protocol: 'any' },
        ...everyPort,
      }),
      give('addresses', 'soft0', 2, { ...udp, portFirst: 7, portLast: 7 }),
      give('addresses', 'soft0', 2, { ...udp, portFirst: 5000, portLast: 5010 }),
      give('rate', '*', 2, { bitsPerSecond: 2.5e9, packetsPerSecond: 1e5, weight: 3 }),
      give('cores', '*', 2, { cpus: [0, 1, 2] }),
      give('pool', 'nvme0', 2, { bytes: 10 * 2 ** 30 }),
      give('directory', '/app/web', most, null),
      give('directory', '/net', list | lookup | watch, null),
    ]);
    assert.equal(policy.vnicsFor(alice), 3);
    assert.deepEqual(policy.policyFor(nobody), []);
  });

  test('rules add up, and nothing comes twice', () => {
    const policy = parse(`
users: {alice: {vnics: 1, devices: [soft0]}}
groups: {web: {vnics: 2, devices: [soft0, eth0]}, staff: {rate: any}}
programs: {/usr/bin/web: {cores: 1, grant: true}}
`);
    const kinds = (peer: PolicyPeer) =>
      policy.policyFor(peer).map(({ kind, object }) => `${kind} ${object}`);
    assert.deepEqual(kinds(alice), ['device soft0', 'rate *']);
    assert.equal(policy.vnicsFor(alice), 1);
    const member = { ...alice, groups: [33], exe: '/usr/bin/web' };
    assert.deepEqual(kinds(member), ['device soft0', 'device eth0', 'rate *', 'cores *']);
    assert.equal(policy.vnicsFor(member), 3);
    const cores = policy.policyFor({ ...nobody, exe: '/usr/bin/web' });
    assert.equal(cores[0]!.rights, RIGHTS.cores.grant | RIGHTS.cores.use);
    assert.deepEqual(kinds({ ...nobody, exe: '/usr/bin/web2' }), []);
    assert.deepEqual(kinds({ ...nobody, gid: null }), []);
  });

  test('a number is a uid also when nobody has it, and words of YAML are only words', () => {
    const policy = parse('users: {4242: {names: {/no: read}}}\n');
    assert.equal(policy.policyFor(nobody)[0]!.object, '/no');
  });

  test('groups of a user as after a login', () => {
    assert.deepEqual(users.groupsOf(users.user('alice')!), [1000, 33]);
    assert.deepEqual(users.groupsOf(users.user('1001')!), [1000]);
    assert.equal(users.user('carol'), null);
  });
});

describe('what is wrong', () => {
  /** `users: {alice: {` is 16 characters: what follows begins at column 17. */
  const inRule = (text: string) => `users: {alice: {${text}}}`;

  test('shape', () => {
    assert.deepEqual(problemsOf('grups: {}\nuser: {}'), [
      '1:1 error "grups" is not known here',
      '2:1 error "user" is not known here',
    ]);
    for (const [text, message] of [
      ['- alice', /^1:1 error a policy is a table/],
      ['users: [alice]', /^1:8 error users is a table by their names/],
      ['users: {alice: }', /^1:16 error a rule is a table/],
      [inRule('devices: soft0'), /^1:26 error devices is a list/],
      [inRule('vnics: [1]'), /^1:24 error vnics is one word/],
      [inRule('device: soft0'), /^1:17 error "device" is not known here/],
      [inRule('devices: [{direct: true}]'), /^1:27 error a device is one word/],
      [inRule('rate: 1G'), /^1:23 error a rate that is not "any" is a table/],
    ] as const) {
      const [first] = problemsOf(text);
      assert.match(first!, message);
    }
  });

  test('values', () => {
    for (const [text, message] of [
      ['vnics: 0', /no number for this/],
      ['vnics: -1', /no number for this/],
      [`vnics: ${LIMITS.vnicsMax + 1}`, /no number for this/],
      ['rate: {bits: 0}', /bits "0" is not a rate/],
      ['rate: {bits: -5M}', /bits "-5M" is not a rate/],
      ['rate: {packets: 0}', /packets "0" is not a rate/],
      ['rate: {bits: 1}', /no device keeps/],
      ['rate: {weight: 0}', /no number for this/],
      ['rate: {burst: 1}', /"burst" is not known here/],
      ['cores: 1-', /not a list of CPUs/],
      ['pools: {nvme0: 10G}', /no size/],
      ['pools: {nvme0: 0GiB}', /is nothing/],
      ['pools: {nvme0: 99999999TiB}', /too large/],
      ['pools: {"a b": 1GiB}', /no name of a pool/],
      ['names: {app: read}', /no path of names/],
      ['names: {/a/../b: read}', /no path of names/],
      ['names: {/a: all}', /no right to names/],
      ['grant: yes', /neither true nor false/],
      ['devices: ["a b"]', /no name of a device/],
      ['addresses: [10.0.0.1/24]', /an address within a block/],
      ['addresses: [10.0.0.0/33]', /no prefix length/],
      ['addresses: [10.0.0.9-10.0.0.1]', /ends before it begins/],
      ['addresses: [10.0.0.256]', /no range of IPv4/],
      ['addresses: ["::1"]', /no range of IPv4/],
      ['addresses: [0.0.0.0/0]', /not for hosts/],
      ['addresses: [127.0.0.1]', /loopback/],
      ['addresses: [223.0.0.0-225.0.0.0]', /multicast/],
      ['addresses: [255.255.255.255]', /reserved/],
      ['addresses: [{range: any, ports: 7}]', /ports without a protocol/],
      ['addresses: [{range: any, protocol: icmp, ports: 7}]', /icmp has no ports/],
      ['addresses: [{range: any, protocol: sctp}]', /no protocol "sctp"/],
      ['addresses: [{range: any, protocol: udp, ports: 65536}]', /does not exist/],
      ['addresses: [{range: any, protocol: udp, ports: 9-7}]', /ends before it begins/],
    ] as const) {
      const problems = problemsOf(inRule(text)).filter((problem) => problem.includes(' error '));
      assert.equal(problems.length, 1, `${text}: ${problems.join('; ')}`);
      assert.match(problems[0]!, message, text);
      const column = Number(/^1:(\d+) /.exec(problems[0]!)![1]);
      assert.ok(column > 16 && column <= inRule(text).length, problems[0]!);
    }
  });

  test('subjects', () => {
    assert.deepEqual(problemsOf('users:\n  zed: {}\ngroups:\n  zed: {}\nprograms:\n  web: {}'), [
      '2:3 error there is no user "zed"',
      '4:3 error there is no group "zed"',
      '6:3 error "web" is no path of a program',
    ]);
    assert.deepEqual(problemsOf('users:\n  alice: {}\n  1000: {}\n'), [
      '3:3 error user "1000" is "alice" of line 2',
    ]);
    for (const path of ['/usr/../bin/x', '/usr//bin', '/usr/bin/', 'bin/x', '4294967295']) {
      assert.match(problemsOf(`programs: {"${path}": {}}`)[0]!, /no path of a program/);
    }
    assert.match(problemsOf('users: {4294967295: {}}')[0]!, /no user/);
  });

  test('all at once, in the order of the file, with a hint each', () => {
    const text = `users:
  zed: {rate: {bits: 0}}
  alice:
    devices: soft0
    devices: [soft0]
  alice: {}
programs:
  /usr/bin/web: {vnics: none, speed: 9}
`;
    const { policy, problems } = parsePolicy(text, environment);
    assert.equal(policy, null);
    assert.deepEqual(
      problems.map(({ line, column }) => `${line}:${column}`),
      ['2:3', '2:22', '4:14', '5:5', '6:3', '8:25', '8:31'],
    );
    for (const { hint } of problems) assert.ok(hint!.length > 0);
    const error = policyError('f', problems);
    assert.equal(error.code, 'ARK_POLICY');
    assert.match(error.message, /^f:2:3: .*f:2:22: .*f:4:14: .*; and 4 more$/);
    assert.match(error.hint!, /arrakis policy check f/);
  });

  test('what is not YAML, or more of it than is taken', () => {
    for (const [text, place, message] of [
      ['users: [', '1:', /not YAML/],
      ['users:\n\talice: {}', '2:1', /not YAML/],
      ['users: {}\n---\nusers: {}', '2:1', /second document/],
      ['users: &a {}\ngroups: *a', '1:11', /anchor &a/],
      ['users: !!map {}', '1:', /tag/],
      ['%YAML 1.1\n---\nusers: {}', '1:1', /directive/],
      ['? [a]\n: b', '1:3', /a key that is a list/],
      ['users: {__proto__: {}}', '1:9', /"__proto__" is no name/],
      ['users:\n  ali\0ce: {}', '2:6', /NUL/],
      ['users: {}\nusers: {}', '2:1', /stands here twice/],
    ] as const) {
      const problems = problemsOf(text);
      assert.ok(problems[0]!.startsWith(place), problems[0]!);
      assert.match(problems[0]!, message);
      assert.equal(parsePolicy(text, environment).policy, null, text);
    }
  });

  test('a bomb of aliases, and a file that is nested without end, are refused at once', () => {
    const doubling = Array.from({ length: 40 }, (_, i) => `a${i}: &a${i} [*a${i - 1}, *a${i - 1}]`);
    const bomb = `a: &a-1 [x]\n${doubling.join('\n')}`;
    const deep = ['[', '{a: ', '- ', '? '].map((open) => open.repeat(50_000));
    for (const text of [bomb, ...deep]) {
      const { policy, problems } = parsePolicy(text, environment);
      assert.equal(policy, null);
      assert.ok(problems.length > 0 && problems.length <= LIMITS.policyProblemsMax + 1);
    }
    assert.match(problemsOf(deep[0]!)[0]!, /nested too deeply/);
  });

  test('more problems than anybody reads are counted', () => {
    const text = `users:\n${Array.from({ length: 300 }, (_, i) => `  u${i}: {}`).join('\n')}`;
    const problems = problemsOf(text);
    assert.equal(problems.length, LIMITS.policyProblemsMax + 1);
    assert.match(problems.at(-1)!, /^102:3 error 200 more/);
  });

  test('more entries than a policy may have', () => {
    const range = '{range: 10.0.0.1, protocol: udp, ports: "';
    const ports = Array.from({ length: 64 }, (_, i) => i * 2).join(',');
    const entry = `      - ${range}${ports}"}\n`;
    const count = Math.ceil((LIMITS.policyEntriesMax + 1) / 64);
    const text = `users:\n  alice:\n    addresses:\n${entry.repeat(count)}`;
    assert.match(problemsOf(text)[0]!, /^2:3 error a policy gives at most/);
  });
});

describe('exclusive ranges', () => {
  const two = (a: string, b: string) =>
    problemsOf(`users:\n  alice: {addresses: [${a}]}\n  bob: {addresses: [${b}]}`);
  const only = (range: string, more = '') => `{range: ${range}, exclusive: true${more}}`;

  test('overlap with anybody else is an error at the later one, which names the earlier', () => {
    assert.deepEqual(two(only('10.0.0.0/24'), '10.0.0.200-10.0.1.7'), [
      '3:21 error 10.0.0.200-10.0.0.255 is exclusively for user "alice", line 2',
    ]);
    assert.deepEqual(two('any', only('10.0.0.1')), [
      '3:21 error exclusive, but 10.0.0.1 is also given to user "alice", line 2',
    ]);
    assert.equal(two(only('10.0.0.1'), only('10.0.0.1')).length, 1);
  });

  test('neighbours, other ports, protocols and devices do not overlap; shared ranges may', () => {
    assert.deepEqual(two(only('10.0.0.0/25'), '10.0.0.128/25'), []);
    assert.deepEqual(two('10.0.0.0/24', '10.0.0.0/24'), []);
    const udp = ', protocol: udp, ports: 7';
    assert.deepEqual(two(only('10.0.0.1', udp), '{range: 10.0.0.1, protocol: udp, ports: 8}'), []);
    assert.deepEqual(two(only('10.0.0.1', udp), '{range: 10.0.0.1, protocol: tcp}'), []);
    assert.equal(two(only('10.0.0.1', udp), '10.0.0.1').length, 1);
    const on = ', device: soft0';
    assert.equal(two(only('10.77.0.1', on), '{range: 10.77.0.1, device: eth0}').length, 0);
    assert.equal(two(only('10.77.0.1', on), '10.77.0.1').length, 1);
  });

  test('of one subject they may', () => {
    const text = `users: {alice: {addresses: [${only('10.0.0.0/24')}, ${only('10.0.0.1')}]}}`;
    assert.deepEqual(problemsOf(text), []);
  });
});

describe('warnings', () => {
  const warnings = (text: string): string => {
    assert.ok(parsePolicy(text, environment).policy, 'a warning keeps nothing from being used');
    return problemsOf(text).join('\n');
  };

  test('of what is not there now', () => {
    assert.match(
      warnings('users:\n  alice: {devices: [eth9], addresses: [any], rate: any}'),
      /^2:21 warning there is no device eth9 now$/,
    );
    assert.match(warnings('users: {alice: {cores: 3-4}}'), /no processor 4$/);
    assert.match(warnings('programs: {/bin/none: {}}'), /there is no program/);
    assert.match(warnings('programs: {/bin/link: {}}'), /is a link/);
    assert.match(warnings('programs: {/tmp/open: {}}'), /others than root may change/);
    assert.match(warnings('users: {root: {}}'), /root has everything/);
    assert.equal(warnings('programs: {/usr/bin/web: {}}'), '');
  });

  test('of addresses outside the networks of the devices, and rules by which nothing can be opened', () => {
    const rule = (more: string) => `users: {alice: {devices: [soft0], ${more}}}`;
    assert.match(warnings(rule('rate: any, addresses: [10.78.0.1]')), /not in a network/);
    assert.equal(warnings(rule('rate: any, addresses: [10.77.0.0/24, any]')), '');
    assert.match(warnings(rule('rate: any')), /devices without addresses$/);
    assert.match(warnings('users: {alice: {devices: [soft0]}}'), /without addresses and a rate$/);
  });
});

describe('any text', () => {
  /** Pieces of policy files, and what breaks them. */
  const piece = fc.constantFrom(
    ...['users', 'groups', 'programs', 'alice', ': ', ':\n', '  ', '\n', '- ', '[', ']', '{', '}'],
    ...['devices', 'addresses', 'rate', 'any', '10.0.0.0/8', '1G', 'true', ',', '"', "'", '#', '|'],
    ...['&a ', '*a', '!!int ', '---\n', '%', '\t', '\0', '\u{1f41b}', '\ud800', '0', '?', '>'],
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 60 }).map((all) => all.join('')),
  );

  test('throws nothing, and every problem is at a place of the text', () => {
    fc.assert(
      fc.property(text, (source) => {
        const { policy, problems } = parsePolicy(source, environment);
        const lines = source.split('\n').length;
        for (const { line, column } of problems)
          assert.ok(line >= 1 && line <= lines && column >= 1);
        assert.equal(
          policy === null,
          problems.some(({ severity }) => severity === 'error'),
        );
        if (policy === null) assert.ok(policyError('f', problems) instanceof ArrakisError);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('any policy', () => {
  const at = { line: 1, column: 1 };
  const port = fc.nat(65535);
  const host = fc.integer({ min: 0x0b000000, max: 0x7effffff });
  const ordered = <T>(value: fc.Arbitrary<T>) =>
    fc.tuple(value, value).map(([a, b]) => (a <= b ? [a, b] : [b, a]) as [T, T]);
  const ports = fc.array(ordered(port), { minLength: 1, maxLength: 4 });
  const withPorts = fc.tuple(fc.constantFrom('udp' as const, 'tcp' as const), ports);
  const withoutPorts = fc.tuple(
    fc.constantFrom('any' as const, 'icmp' as const),
    fc.constant<[number, number][]>([[0, 65535]]),
  );
  // The one name that no file can have: it is refused, which has a test of its own.
  const device = fc
    .stringMatching(/^[A-Za-z0-9_.@-]{1,15}$/)
    .filter((name) => name !== '__proto__');
  const entry = fc
    .tuple(ordered(host), fc.oneof(withPorts, withoutPorts), fc.option(device, { nil: '*' }))
    .map(([[first, last], [protocol, intervals], on]) => ({
      device: on,
      exclusive: false,
      at,
      ranges: intervals.map(
        ([portFirst, portLast]): AddressRange => ({ first, last, protocol, portFirst, portLast }),
      ),
    }));
  const rate = fc.record<RateRange>(
    {
      bitsPerSecond: fc.option(fc.integer({ min: 1000, max: 1e12 })),
      packetsPerSecond: fc.option(fc.integer({ min: 1, max: 1e9 })),
      weight: fc.option(fc.integer({ min: 1, max: 100 })),
    },
    { noNullPrototype: true },
  );
  const rule = fc.record<Omit<Rule, 'subject'>>({
    at: fc.constant(at),
    vnics: fc.option(fc.integer({ min: 1, max: LIMITS.vnicsMax })),
    devices: fc.array(fc.record({ name: device, direct: fc.boolean(), at: fc.constant(at) })),
    addresses: fc.array(entry, { maxLength: 5 }),
    rate: fc.option(rate),
    cores: fc.uniqueArray(fc.nat(1023), { maxLength: 5 }).map((all) => all.sort((a, b) => a - b)),
    pools: fc.uniqueArray(
      fc.record({ name: device, bytes: fc.integer({ min: 1, max: 2 ** 49 }) }),
      { selector: ({ name }) => name, maxLength: 3 },
    ),
    names: fc.uniqueArray(
      fc.record({
        path: fc.stringMatching(/^(\/[a-z0-9:#'"{}&*! -]{1,6}){1,3}$/),
        access: fc.constantFrom('read' as const, 'write' as const),
      }),
      { selector: ({ path }) => path, maxLength: 3 },
    ),
    grant: fc.boolean(),
  });
  const policies = fc
    .uniqueArray(
      fc.tuple(fc.constantFrom('user' as const, 'group' as const), fc.nat(70_000), rule),
      {
        selector: ([kind, id]) => `${kind}${id}`,
        maxLength: 5,
      },
    )
    .map(
      (all) =>
        new Policy(
          all.map(([kind, id, rest]) => ({ ...rest, subject: { kind, id, name: String(id) } })),
        ),
    );

  test('is read back as it was written: the same for everybody', () => {
    fc.assert(
      fc.property(policies, (policy) => {
        const text = formatPolicy(policy);
        const { policy: again, problems } = parsePolicy(text, environment);
        assert.ok(again, `${text}\n${JSON.stringify(problems)}`);
        for (const { subject } of policy.rules) {
          if (subject.kind === 'program') continue;
          const peer =
            subject.kind === 'user'
              ? { ...nobody, uid: subject.id, gid: null }
              : { ...nobody, uid: -1, gid: null, groups: [subject.id] };
          const sorted = (one: Policy) => one.policyFor(peer).map(keyOf).sort();
          assert.deepEqual(sorted(again), sorted(policy), text);
          assert.equal(again.vnicsFor(peer), policy.vnicsFor(peer));
        }
      }),
      { numRuns: 300 },
    );
  });
});
