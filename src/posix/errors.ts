/** Which errno each way to fail has: what a program that knows Node expects. */
import { ArrakisError, type ErrorCode } from '../base/errors.ts';
import { TCP_END, type TcpEnd } from '../net/tcp/api.ts';
import { UV } from './node.ts';

const OF_END: Readonly<Record<TcpEnd, number>> = {
  [TCP_END.closed]: UV.EOF,
  [TCP_END.reset]: UV.ECONNRESET,
  [TCP_END.refused]: UV.ECONNREFUSED,
  [TCP_END.timedOut]: UV.ETIMEDOUT,
  [TCP_END.unreachable]: UV.EHOSTUNREACH,
  [TCP_END.aborted]: UV.ECONNABORTED,
  [TCP_END.gone]: UV.ENETDOWN,
  [TCP_END.noMemory]: UV.ENOBUFS,
};

/** How a connection ended, as an errno. In order: the end of the stream. */
export const errnoOfEnd = (why: TcpEnd): number => OF_END[why];

const OF_CODE: Partial<Record<ErrorCode, number>> = {
  ARK_IN_USE: UV.EADDRINUSE,
  ARK_BAD_ARGUMENT: UV.EADDRNOTAVAIL,
  ARK_LIMIT: UV.ENOBUFS,
  ARK_GONE: UV.ENETDOWN,
  ARK_NOT_PERMITTED: UV.EACCES,
};

/** The errno for what the stack threw; what is no refusal of the stack's is thrown again. */
export function errnoOf(error: unknown): number {
  const errno = error instanceof ArrakisError ? OF_CODE[error.code] : undefined;
  if (errno === undefined) throw error;
  return errno;
}
