// Keeps a view live: asks again every two seconds while the tab is seen, less often while the service is away.

const EVERY_MS = 2000;
const MOST_MS = 15000;

/**
 * Runs `refresh` now and again and again until stopped. `onResult(error)` is told how each went, undefined for well.
 */
export class Poller {
  constructor(refresh, onResult, everyMs = EVERY_MS) {
    this.refresh = refresh;
    this.onResult = onResult;
    this.everyMs = everyMs;
    this.failures = 0;
    this.timer = 0;
    this.stopped = false;
    this.running = false;
    this.again = false;
    this.onVisible = () => {
      if (!document.hidden) this.now();
    };
    document.addEventListener('visibilitychange', this.onVisible);
    window.addEventListener('online', this.onVisible);
  }

  /** Asks at once, or as soon as the question under way is answered. */
  async now() {
    clearTimeout(this.timer);
    if (this.stopped) return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    this.again = false;
    let failure;
    try {
      await this.refresh();
      this.failures = 0;
    } catch (error) {
      failure = error;
      this.failures += 1;
    }
    this.running = false;
    if (this.stopped) return;
    this.onResult(failure);
    if (this.again) return this.now();
    const wait = failure ? Math.min(MOST_MS, this.everyMs * 2 ** Math.min(this.failures - 1, 4)) : this.everyMs;
    if (document.hidden) return;
    this.timer = setTimeout(() => {
      // Hidden meanwhile: what shows it again asks.
      if (!document.hidden) this.now();
    }, wait);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    document.removeEventListener('visibilitychange', this.onVisible);
    window.removeEventListener('online', this.onVisible);
  }
}
