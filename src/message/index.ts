/** Messages between domains, and between threads of one. */
export { Channel, type ChannelDriver, type Handler, type RequestOptions } from './channel.ts';
export {
  type Codec,
  type FieldType,
  jsonCodec,
  type StructCodec,
  type StructFields,
  structCodec,
} from './codec.ts';
export { type LinkMemory, linkBytes, linkMemory } from './layout.ts';
export { LINK_STATE, type LinkBells, MessageLink, makeBells } from './link.ts';
export { NONE } from './ring.ts';
