/** The attacker: a process with real capabilities, which misuses them as it is told. Acts are in attacks/. */
import { serveActs } from './actor.ts';
import { exhaustActs } from './attacks/exhaust.ts';
import { frameActs } from './attacks/frames.ts';
import { fuzzActs } from './attacks/fuzz.ts';
import { handleActs } from './attacks/handles.ts';
import { memoryActs } from './attacks/memory.ts';
import { peerActs } from './attacks/peers.ts';

serveActs({ ...exhaustActs, ...fuzzActs, ...frameActs, ...handleActs, ...memoryActs, ...peerActs });
