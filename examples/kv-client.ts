/** Asks examples/kv-server: `node dist/examples/kv-client.js [PATH]`. */
import { connect } from '../src/arrakis/index.ts';

const domain = await connect({ name: 'kv-client' });
const kv = await domain.connect<unknown>(process.argv[2] ?? '/app/kv');
console.log(`connected to ${kv.peer.name} of uid ${kv.peer.uid}`);
for (const [key, value] of Object.entries({ spice: 'melange', worms: 3 })) {
  await kv.request({ op: 'put', key, value });
}
console.log(await kv.request({ op: 'get', key: 'spice' }));
for await (const key of kv.stream({ op: 'keys' })) console.log(key);
await domain.close();
