/** `node:dgram` on the kernel's sockets, which says what is expected, and on ours. */
import { after } from 'node:test';
import { joinedInterfaces } from '../support/posix.ts';
import { dgramSuite } from './dgram.suite.ts';

dgramSuite("dgram on the kernel's loopback", { address: '127.0.0.1', from: '127.0.0.2' });

const pair = joinedInterfaces('10.97.0.1', '10.97.0.2');
dgramSuite('dgram over a wire', { address: '10.97.0.1', from: '10.97.0.2', group: '239.1.2.3' });
after(() => pair.close());
