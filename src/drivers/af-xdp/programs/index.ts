export { deliverProgram } from './deliver.ts';
export { type GuardOptions, guardProgram } from './guard.ts';
export * from './maps.ts';
export { steerProgram } from './steer.ts';
