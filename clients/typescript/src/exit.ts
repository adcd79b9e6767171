// What waits when a process ends: sent while that can wait, told of where it cannot.
interface Waiting {
  flush(ms: number): Promise<boolean>;
  close(): void;
}

interface Process {
  on?(event: string, listener: () => void): void;
}

const exitMs = 10_000;
const waiting = new Set<Waiting>();
let watching = false;

/** Notes that something waits. Browsers and edge runtimes have no exit to watch: flush there. */
export function watchExit(w: Waiting): void {
  waiting.add(w);
  const { process } = globalThis as { process?: Process };
  if (watching || typeof process?.on !== "function") return;
  watching = true;
  process.on("beforeExit", () => {
    for (const w of waiting) void w.flush(exitMs).then((all) => all || w.close());
  });
  process.on("exit", () => {
    for (const w of waiting) w.close();
  });
}

export function unwatchExit(w: Waiting): void {
  waiting.delete(w);
}
