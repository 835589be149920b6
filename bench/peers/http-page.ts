/** `http-page.js ADDRESS PORT FILE`: one page from memory by node:http. The same program on the kernel and on Arrakis. */
import fs from 'node:fs';
import http from 'node:http';

const [address = '127.0.0.1', port = '8080', file = ''] = process.argv.slice(2);
const page = fs.readFileSync(file);
const server = http.createServer((_request, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.setHeader('Content-Length', page.length);
  response.end(page);
});
server.keepAliveTimeout = 60_000;
server.listen(Number(port), address, 4096);
process.on('SIGTERM', () => process.exit(0));
