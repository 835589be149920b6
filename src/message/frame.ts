/** What the tag of a channel's message says: its kind in the low four bits, the request it belongs to above. */
export const FRAME = {
  /** One way; id 0. */
  message: 0,
  request: 1,
  /** The answer, and the end of the request. */
  response: 2,
  /** It failed: JSON `{code, message}`. The end of the request. */
  error: 3,
  /** The requester does not want an answer any more. No payload. */
  cancel: 4,
  /** One item of a stream of answers. */
  item: 5,
  /** There are no more items. No payload. The end of the request. */
  end: 6,
  /** The requester has taken items: payload u32, how many more may be sent. */
  credit: 7,
} as const;
export type Frame = (typeof FRAME)[keyof typeof FRAME];

const KIND_BITS = 4;
/** Ids go round here; one that is still in flight is passed over. */
export const ID_MAX = 2 ** 27 - 1;

export const tagOf = (kind: Frame, id: number): number => (id << KIND_BITS) | kind;
export const kindOf = (tag: number): number => tag & 15;
export const idOf = (tag: number): number => tag >>> KIND_BITS;
