export { deliverProgram } from './deliver.ts';
export { type GuardOptions, guardProgram } from './guard.ts';
export * from './maps.ts';
export { LIMIT_BYTES, LIMITS_MAX, limitOf, writeLimit } from './police.ts';
export { steerProgram } from './steer.ts';
