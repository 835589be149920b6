/** Bounded waiting for what another process, the kernel or the event loop is about to do. */
const POLL_MS = 5;

/**
 * Resolves when `predicate` holds (it is asked every few milliseconds); rejects after `timeoutMs`, saying `what`
 * was waited for. A predicate that throws rejects at once.
 */
export async function until(
  predicate: () => boolean | Promise<boolean>,
  timeoutMs = 5000,
  what = predicate.toString(),
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await predicate())) {
    if (performance.now() > deadline) {
      throw new Error(`not within ${timeoutMs} ms: ${what}`);
    }
    await sleep(POLL_MS);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
