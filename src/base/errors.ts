/**
 * Control-path errors. Every one has a stable `code` that programs may test, a message for people that
 * says what happened, and where there is one, a `hint` that says what to do next.
 */
export const ERROR_CODES = {
  ARK_UNSUPPORTED: 'this machine, kernel or architecture cannot do it',
  ARK_SYSCALL: 'the kernel refused a call',
  ARK_BAD_MESSAGE: 'a control message is malformed, too large or of the wrong shape',
  ARK_BAD_ARGUMENT: 'an argument is well formed but not acceptable',
  ARK_UNKNOWN_OPERATION: 'the daemon has no such operation',
  ARK_NOT_PERMITTED: 'the caller has no right to it',
  ARK_NOT_FOUND: 'no such object',
  ARK_IN_USE: 'somebody else has it',
  ARK_LIMIT: 'a limit was reached',
  ARK_GONE: 'the object or its device went away',
  ARK_TIMEOUT: 'no answer in time',
  ARK_NO_DAEMON: 'no arrakisd is listening',
  ARK_ALREADY_RUNNING: 'another arrakisd runs in this directory',
  ARK_DEVICE: 'a device process failed or broke its protocol',
  ARK_PROTOCOL: 'a peer broke the ring or vhost-user protocol',
  ARK_VERIFIER: 'the kernel rejected an eBPF program',
  ARK_POLICY: 'the policy file is wrong',
  ARK_USAGE: 'the command line is wrong',
  ARK_INTERNAL: 'a defect in arrakis itself',
} as const satisfies Record<string, string>;

export type ErrorCode = keyof typeof ERROR_CODES;

export class ArrakisError extends Error {
  override readonly name: string = 'ArrakisError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** A failed system call: which one, with what arguments, and the kernel's errno. */
export class SystemError extends ArrakisError {
  override readonly name = 'SystemError';
  /** Name of the call, `bind`. */
  readonly syscall: string;
  /** Symbolic errno, `EBUSY`. */
  readonly errno: string;

  constructor(syscall: string, errno: string, args: readonly unknown[], hint?: string) {
    super(
      'ARK_SYSCALL',
      `${syscall}(${args.map(String).join(', ')}) failed: ${errno}`,
      hint === undefined ? {} : { hint },
    );
    this.syscall = syscall;
    this.errno = errno;
  }
}

/** True when `error` is the failed system call `errno` (`isErrno(e, 'EEXIST')`). */
export function isErrno(error: unknown, ...errnos: string[]): boolean {
  return error instanceof SystemError && errnos.includes(error.errno);
}
