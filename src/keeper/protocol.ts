/**
 * What the keeper and its daemon say to each other: JSON, one message a packet of a SOCK_SEQPACKET socket, descriptors
 * beside it.
 *
 *   put {label} + descriptors      they are kept under the label, in place of what was
 *   delete {label}                 they are closed; nothing happens when there are none
 *   take {}                        answered by {label} + descriptors for each label, then by {end: count}
 *   end {}                         everything is given up and the keeper ends
 *
 * Only `take` is answered. What was sent before the daemon died is still read and done.
 */
import { z } from 'zod';

export const MESSAGE_BYTES_MAX = 4096;
/** Descriptors under one label. */
export const FDS_PER_LABEL_MAX = 64;
/** More labels than a daemon within its limits has objects with descriptors (a test adds them up). */
export const LABELS_MAX = 4096;

const label = z.string().min(1).max(128);

const request = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('put'), label }),
  z.strictObject({ op: z.literal('delete'), label }),
  z.strictObject({ op: z.literal('take') }),
  z.strictObject({ op: z.literal('end') }),
]);

const answer = z.union([z.strictObject({ label }), z.strictObject({ end: z.int().min(0) })]);

export type KeeperRequest = z.infer<typeof request>;
export type KeeperAnswer = z.infer<typeof answer>;

export const parseRequest = (text: string): KeeperRequest | null => parse(request, text);
export const parseAnswer = (text: string): KeeperAnswer | null => parse(answer, text);

export const encode = (message: KeeperRequest | KeeperAnswer): Buffer =>
  Buffer.from(JSON.stringify(message));

function parse<T>(schema: z.ZodType<T>, text: string): T | null {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
