export { deliverProgram } from './deliver.ts';
export { type GuardOptions, guardProgram } from './guard.ts';
export * from './maps.ts';
export { LIMIT_BYTES, LIMITS_MAX, limitOf, queueLimitOf, writeLimit } from './police.ts';
export { MIRRORS, type Receiver, type Sender } from './rules.ts';
export { steerProgram } from './steer.ts';
