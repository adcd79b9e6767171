/** Repeats work while somebody can see it. */

export class Poll {
  #timer = 0;
  #running = false;
  #again = false;
  #failures = 0;
  #started = false;

  /**
   * @param {(signal: AbortSignal) => Promise<void>} work rejects when it failed
   * @param {{every: number, most?: number}} options the pause between two runs, and the
   *   longest pause after failures, both in milliseconds
   */
  constructor(work, {every, most = 30_000}) {
    this.work = work;
    this.every = every;
    this.most = most;
    this.abort = new AbortController();
    this.seen = () => (document.hidden ? this.#pause() : this.now());
  }

  /** Begins at once, unless the page is hidden: then when it is shown. */
  start() {
    if (this.#started) return;
    this.#started = true;
    this.abort = new AbortController();
    document.addEventListener('visibilitychange', this.seen);
    if (!document.hidden) this.now();
  }

  /** Ends, and aborts the work that is under way. */
  stop() {
    this.#started = false;
    this.#again = false;
    document.removeEventListener('visibilitychange', this.seen);
    this.#pause();
    this.abort.abort();
    this.#failures = 0;
  }

  /** Runs now, or right after the run under way. */
  now() {
    if (!this.#started) return;
    this.#pause();
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#run();
  }

  #pause() {
    clearTimeout(this.#timer);
  }

  async #run() {
    const {signal} = this.abort;
    this.#running = true;
    try {
      await this.work(signal);
      this.#failures = 0;
    } catch {
      this.#failures++;
    } finally {
      this.#running = false;
    }
    if (!this.#started || document.hidden) return;
    if (this.#again || signal.aborted) {
      this.#again = false;
      this.#run();
      return;
    }
    const pause = Math.min(this.every * 2 ** this.#failures, this.most);
    this.#timer = setTimeout(() => this.#run(), pause);
  }
}
