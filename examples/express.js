// An ordinary express server. Nothing in it knows of Arrakis:
//
//   arrakis run --posix --vnic soft0,ip=10.77.0.2/24 -- examples/express.js
import express from 'express';

const app = express();
app.use(express.json());
app.get('/', (request, response) => {
  response.send(`hello ${request.socket.remoteAddress}\n`);
});
app.post('/echo', (request, response) => {
  response.json(request.body);
});

const server = app.listen(Number(process.env.PORT ?? 80), () => {
  console.log('listening on', server.address());
});
process.once('SIGTERM', () => server.close(() => process.exit()));
