/** The attacker: a process with real capabilities, which misuses them as it is told. Acts are in attacks/. */
import { serveActs } from './actor.ts';
import { frameActs } from './attacks/frames.ts';
import { handleActs } from './attacks/handles.ts';
import { memoryActs } from './attacks/memory.ts';

serveActs({ ...frameActs, ...handleActs, ...memoryActs });
