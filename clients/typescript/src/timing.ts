/** Calls back later, and keeps no process alive for it. */
export function later(ms: number, done: () => void): { cancel(): void } {
  const timer: unknown = setTimeout(done, ms);
  (timer as { unref?: () => void }).unref?.(); // a number in browsers and at the edge, where no process ends
  return { cancel: () => clearTimeout(timer as number) };
}

export interface Deadline {
  /** Aborts when time is over, or when the other signal does. */
  signal: AbortSignal;
  leftMs(): number;
  /** To be called in any case. */
  end(): void;
}

export function deadline(ms: number, other?: AbortSignal): Deadline {
  const over = performance.now() + ms;
  const controller = new AbortController();
  const stop = () => controller.abort(other?.reason);
  const timer = setTimeout(() => controller.abort(new DOMException(`no answer within ${ms} ms`, "TimeoutError")), ms);
  if (other?.aborted) stop();
  else other?.addEventListener("abort", stop, { once: true });
  return {
    signal: controller.signal,
    leftMs: () => over - performance.now(),
    end() {
      clearTimeout(timer);
      other?.removeEventListener("abort", stop);
    },
  };
}

/** How long to wait after so many failures: longer each time, and never twice the same. */
export function backoff(failures: number, atMostMs: number): number {
  return Math.min(100 * 2 ** (failures - 1), atMostMs) * (1 + Math.random() / 4);
}

/** Waits, or throws what the signal says. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, ms);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}
