import {Problem} from './api.js';
import {say} from './dom.js';
import {ordinal, tokens, utcLongWeekday, utcTime} from './format.js';

const DEBOUNCE_MS = 250;
const AGAIN_MS = 3000;

/**
 * Says, while somebody types caps, what they would have done last period. Only the
 * answer to the latest question is shown, in whatever order the answers come.
 */
export class BackTest {
  #timer = 0;
  #asked = '';
  #failedAt = 0;
  #abort = new AbortController();

  /** @param {HTMLElement} out @param {HTMLElement} frame */
  constructor(out, frame) {
    this.out = out;
    this.frame = frame;
  }

  /**
   * @param {import('./api.js').Api} api @param {string} port
   * @param {import('./api.js').Settings | null} settings null: what was typed is no budget
   */
  ask(api, port, settings) {
    const question = JSON.stringify([port, settings && {...settings, enabled: true}]);
    if (question === this.#asked) return;
    const first = this.#asked === '';
    this.stop();
    this.#asked = question;
    if (!settings) return say(this.out, 'Type caps as 200k, 1.5M or 1,500,000. Empty is no cap.');
    if (settings.soft_cap_tokens === null && settings.hard_cap_tokens === null) return say(this.out, 'Without caps nothing is refused and nobody is warned.');
    this.frame.setAttribute('aria-busy', 'true');
    this.#timer = setTimeout(() => this.#run(api, port, settings), first ? 0 : DEBOUNCE_MS);
  }

  /**
   * Asks once more if the last question failed, which the server may by now be able to
   * answer, but does not press a server that has just failed.
   * @param {import('./api.js').Api} api @param {string} port @param {import('./api.js').Settings | null} settings
   */
  again(api, port, settings) {
    if (this.#failedAt && Date.now() - this.#failedAt >= AGAIN_MS) this.ask(api, port, settings);
  }

  /** Forgets the question that is under way. */
  stop() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#asked = '';
    this.#failedAt = 0;
    this.frame.removeAttribute('aria-busy');
  }

  /** @param {import('./api.js').Api} api @param {string} port @param {import('./api.js').Settings} settings */
  async #run(api, port, settings) {
    const {signal} = this.#abort;
    let text;
    try {
      text = sentence(await api.simulate(port, settings, signal), settings);
    } catch (e) {
      if (signal.aborted) return;
      this.#asked = ''; // the next keystroke asks again
      this.#failedAt = Date.now();
      text = e instanceof Problem ? `The back-test failed: ${e.message}` : 'The back-test needs the server, which cannot be reached.';
    }
    if (signal.aborted) return;
    this.frame.removeAttribute('aria-busy');
    say(this.out, text);
  }
}

/** @param {import('./api.js').Simulation} s @param {import('./api.js').Settings} settings */
export function sentence(s, settings) {
  const when = {day: 'yesterday', week: 'last week', month: 'last month'}[settings.period];
  if (s.calls === 0) return `There were no calls ${when} to test these caps against.`;
  const both = settings.hard_cap_tokens !== null && settings.soft_cap_tokens !== null;
  const warned = s.warned_calls === 0 || !s.first_warned_at ? 'warned of nothing' : `warned from ${since(s.first_warned_at, settings.period)} on`;
  if (settings.hard_cap_tokens === null) return `With this soft cap, ${when} would have ${warned}.`;
  const soft = both ? ` The soft cap would have ${warned}.` : '';
  const calls = `${tokens(s.calls)} ${s.calls === 1 ? 'call' : 'calls'}`;
  if (s.refused_calls === 0 || !s.first_refused_at) return `With this cap, ${when} none of ${calls} would have been refused.${soft}`;
  return `With this cap, ${when} ${tokens(s.refused_calls)} of ${calls} would have been refused, from ${since(s.first_refused_at, settings.period)} on.${soft}`;
}

/** @param {string} at @param {import('./api.js').Period} period */
function since(at, period) {
  const d = new Date(at);
  if (period === 'day') return `${utcTime(d)} UTC`;
  return period === 'week' ? utcLongWeekday(d) : `the ${ordinal(d.getUTCDate())}`;
}
