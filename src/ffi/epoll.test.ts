import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EPOLLIN, Epoll } from './epoll.ts';
import { closeFd, eventfd, eventfdSignal } from './fd.ts';

test('waits in microseconds: no less than asked for, and not beyond an event', () => {
  const epoll = new Epoll();
  const fd = eventfd();
  try {
    epoll.add(fd, EPOLLIN);
    for (const us of [1, 300, 2500, 1_200_000]) {
      const begin = performance.now();
      assert.equal(epoll.waitUs(us), 0);
      assert.ok((performance.now() - begin) * 1000 >= us - 1, `${us}`);
    }
    eventfdSignal(fd);
    const begin = performance.now();
    assert.equal(epoll.waitUs(60_000_000), 1);
    assert.equal(epoll.readyFd(0), fd);
    assert.ok(performance.now() - begin < 30_000);
  } finally {
    epoll.close();
    closeFd(fd);
  }
});
