// Clients: Redis by ioredis, HTTP by undici and by fetch. Prints what they got as one line of JSON, and ends by itself.
import Redis from 'ioredis';
import { Pool } from 'undici';

const host = process.argv[2];
const redis = new Redis({ host, port: 6379 });
await redis.set('key', 'value'.repeat(10_000));
const value = await redis.get('key');
const batch = redis.pipeline();
for (let i = 0; i < 1000; i++) batch.incr('counter');
const counts = await batch.exec();
const subscriber = redis.duplicate();
await subscriber.subscribe('news');
const heard = new Promise((resolve) => subscriber.on('message', (_, text) => resolve(text)));
await redis.publish('news', 'published');
const news = await heard;
await Promise.all([redis.quit(), subscriber.quit()]);

const pool = new Pool(`http://${host}:9000`, { connections: 4, pipelining: 4 });
const bodies = await Promise.all(
  Array.from({ length: 40 }, async (_, i) => {
    const { body } = await pool.request({ method: 'GET', path: `/${i}` });
    return body.text();
  }),
);
await pool.close();
const fetched = await (await fetch(`http://${host}:9000/fetch`)).text();
const result = { value: value.length, count: counts.at(-1)[1], news, bodies, fetched };
console.log(JSON.stringify(result));
