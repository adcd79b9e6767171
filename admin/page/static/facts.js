import {need, say} from './dom.js';
import {duration, percent, tokens, utcDay, utcMoment} from './format.js';

/** @typedef {import('./api.js').Budget} Budget */

export const THIS = {day: 'today', week: 'this week', month: 'this month'};

/** The figures around the bar. */
export class Facts {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {Budget} b as raised makes it @param {number} now */
  show(b, now) {
    say(need(this.root, '.used'), tokens(b.used_tokens));
    say(need(this.root, '.unit'), `tokens ${THIS[b.period]}`);
    const [part, of] = ratio(b);
    say(need(this.root, '.ratio b'), part);
    say(need(this.root, '.ratio span'), of);
    this.#fact('left', b.remaining_tokens === null ? null : tokens(b.remaining_tokens));
    this.#fact('held', b.held_tokens > 0 ? tokens(b.held_tokens) : null);
    const known = b.projected_tokens !== null && b.projected_tokens !== undefined && b.used_tokens > 0;
    const outlook = known ? whereTo(b, now) : {text: '', over: false};
    this.#fact('projected', known ? tokens(Math.max(b.projected_tokens ?? 0, b.used_tokens)) : null, outlook.text);
    need(this.root, '.fact.projected').classList.toggle('over', outlook.over);
    this.tick(b, now);
  }

  /** @param {Budget} b @param {number} now */
  tick(b, now) {
    const end = new Date(b.resets_at);
    this.#fact('reset', duration(end.getTime() - now), utcMoment(end));
  }

  /** @param {string} name @param {string | null} value @param {string} [note] */
  #fact(name, value, note = '') {
    const fact = need(this.root, `.fact.${name}`);
    fact.hidden = value === null;
    say(need(fact, 'dd'), value ?? '');
    const small = fact.querySelector('.note');
    if (small) say(small, note);
  }
}

/** How much of the cap that matters is spent. @param {Budget} b @returns {[string, string]} */
function ratio(b) {
  const {soft_cap_tokens: soft, hard_cap_tokens: hard, used_tokens: used} = b;
  const off = b.enabled ? '' : ' The caps are not enforced.';
  const limited = b.enabled && b.limits.length > 0;
  if (hard === null && soft === null) return ['', limited ? 'No cap on all calls together, but limits on some: see below.' : 'No cap. Usage is recorded, nothing is refused.'];
  if (hard === 0) return ['', `The hard cap is 0: every call is refused.${off}`];
  const extra = b.extra_tokens && b.extra_until ? `, ${tokens(b.extra_tokens)} of it extra until ${utcMoment(new Date(b.extra_until))}` : '';
  if (hard !== null) return [percent(used / hard), ` of the hard cap${extra}.${off}`];
  return soft ? [percent(used / soft), ` of the soft cap.${off}`] : ['', `The soft cap is 0: every call is warned of.${off}`];
}

/** What the projection means for the caps. @param {Budget} b @param {number} now */
function whereTo(b, now) {
  const projected = b.projected_tokens ?? 0;
  const {used_tokens: used, hard_cap_tokens: hard, soft_cap_tokens: soft} = b;
  const end = Date.parse(b.resets_at);
  const reaches = (/** @type {number} */ cap) => {
    const at = new Date(now + (end - now) * ((cap - used) / (projected - used)));
    return b.period === 'day' ? utcMoment(at) : utcDay(at);
  };
  if (hard !== null && projected > hard) {
    return {over: true, text: used >= hard ? 'if nothing were refused' : `reaches the hard cap on ${reaches(hard)}`};
  }
  if (soft !== null && projected > soft && used < soft) return {over: false, text: `reaches the soft cap on ${reaches(soft)}`};
  if (hard) return {over: false, text: `${percent(projected / hard)} of the hard cap`};
  return {over: false, text: 'by the reset, at this pace'};
}
