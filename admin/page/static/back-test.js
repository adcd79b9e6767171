import {Problem} from './api.js';
import {say} from './dom.js';
import {ordinal, tokens, utcLongWeekday, utcTime} from './format.js';

const DEBOUNCE_MS = 250;
const AGAIN_MS = 3000;

/**
 * @typedef {object} Question
 * @property {string} key what it is about: the same is not asked twice
 * @property {string} [idle] what to say instead of asking
 * @property {(signal: AbortSignal) => Promise<string>} ask
 */

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

  /** @param {Question} question */
  ask(question) {
    if (question.key === this.#asked) return;
    const first = this.#asked === '';
    this.stop();
    this.#asked = question.key;
    if (question.idle) return say(this.out, question.idle);
    this.frame.setAttribute('aria-busy', 'true');
    this.#timer = setTimeout(() => this.#run(question), first ? 0 : DEBOUNCE_MS);
  }

  /**
   * Asks once more if the last question failed, which the server may by now be able to
   * answer, but does not press a server that has just failed.
   * @param {Question} question
   */
  again(question) {
    if (this.#failedAt && Date.now() - this.#failedAt >= AGAIN_MS) this.ask(question);
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

  /** @param {Question} question */
  async #run(question) {
    const {signal} = this.#abort;
    let text;
    try {
      text = await question.ask(signal);
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

/**
 * What the caps of a budget would have done.
 * @param {import('./api.js').Api} api @param {string} port
 * @param {import('./api.js').Settings | null} settings null: what was typed is no budget
 * @returns {Question}
 */
export function ofCaps(api, port, settings) {
  const key = JSON.stringify([port, settings && {...settings, enabled: true}]);
  if (!settings) return {key, idle: 'Type caps as 200k, 1.5M or 1,500,000. Empty is no cap.', ask: async () => ''};
  const idle = settings.soft_cap_tokens === null && settings.hard_cap_tokens === null ? 'Without caps nothing is refused and nobody is warned.' : undefined;
  return {key, idle, ask: async (signal) => sentence(await api.simulate(port, settings, signal), settings)};
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
export function since(at, period) {
  const d = new Date(at);
  if (period === 'day') return utcTime(d);
  return period === 'week' ? utcLongWeekday(d) : `the ${ordinal(d.getUTCDate())}`;
}
