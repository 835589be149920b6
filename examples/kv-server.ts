/** A small store that other applications reach by its name: `node dist/examples/kv-server.js [PATH]`. */
import { connect } from '../src/arrakis/index.ts';

interface Request {
  op: 'get' | 'put' | 'keys';
  key?: string;
  value?: unknown;
}

const path = process.argv[2] ?? '/app/kv';
const domain = await connect({ name: 'kv-server' });
const listener = await domain.listen<unknown>(path);
console.log(`listening at ${path}`);
const store = new Map<string, unknown>();

async function* keys(): AsyncGenerator<string> {
  yield* store.keys();
}

for await (const channel of listener) {
  console.log(`uid ${channel.peer.uid} (${channel.peer.name}) is here`);
  channel.on('close', (reason) => console.log(`${channel.peer.name}: ${reason}`));
  channel.serve((message) => {
    const { op, key = '', value } = message as Request;
    if (op === 'keys') return keys();
    if (op === 'put') store.set(key, value);
    return store.get(key) ?? null;
  });
}
