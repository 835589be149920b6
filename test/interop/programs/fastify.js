// A fastify server as anybody would write it.
import fastify from 'fastify';

const app = fastify();
app.get('/', async (request) => ({ hello: request.ip }));
app.post('/sum', async (request) => ({ sum: request.body.reduce((a, b) => a + b, 0) }));
console.log(await app.listen({ port: 8080, host: '0.0.0.0' }));
process.once('SIGTERM', () => app.close());
