/** One thread of the web server: the queue pair that it was given, with a stack of its own. Started by main.ts. */
import { parentPort } from 'node:worker_threads';
import { threadVnic } from '../../src/arrakis/index.ts';
import { type HttpSettings, serveOn } from './serve.ts';

const vnic = threadVnic();
parentPort!.postMessage(await serveOn(vnic, vnic.data as HttpSettings).done);
vnic.close();
