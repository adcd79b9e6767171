import {h, place, say} from './dom.js';
import {percent, tokens, utcMoment} from './format.js';
import {valuesTable} from './limit-values.js';
import {alertsAt, caps, NOW, tightest, unitOf, valueName, weights, which} from './limit-words.js';

/** @typedef {import('./api.js').Limit & import('./api.js').Counted} Counted */

/** One limit in the list: what it is about, how far it is used, and what to do with it. */
export class LimitRow {
  #listed = '';

  /** @param {string} name @param {{edit: () => void, remove: () => void, effect: () => string}} act effect says what to remove it does */
  constructor(name, act) {
    this.name = name;
    this.effect = act.effect;
    const of = () => h('span', {class: 'hidden', text: ` ${name}`});
    this.caps = h('p', {class: 'limit-caps'});
    this.which = h('p', {class: 'limit-which'});
    this.weights = h('p', {class: 'limit-which'});
    this.alerts = h('p', {class: 'limit-which'});
    this.bar = h('div', {class: 'limit-bar', role: 'meter', 'aria-valuemin': 0}, h('i', {class: 'soft-mark'}));
    this.used = h('p', {class: 'limit-used'});
    this.left = h('p', {class: 'limit-which'});
    this.values = h('div', {class: 'limit-values', hidden: true});
    this.edit = h('button', {type: 'button', class: 'quiet', onclick: act.edit}, 'Edit', of());
    this.remove = h('button', {type: 'button', class: 'quiet', onclick: () => this.#ask(true)}, 'Remove', of());
    this.keep = h('button', {type: 'button', class: 'quiet', onclick: () => this.#ask(false)}, 'Keep', of());
    this.acts = h('p', {class: 'limit-acts'}, this.edit, this.remove);
    this.question = h('span');
    this.sure = h('p', {class: 'limit-acts', hidden: true}, this.question,
      this.keep, h('button', {type: 'button', class: 'primary', onclick: act.remove}, 'Yes, remove', of()));
    this.root = h('li', {}, h('h4', {text: name}), this.caps, this.which, this.weights, this.alerts, this.bar,
      h('div', {class: 'limit-foot'}, h('div', {class: 'limit-figures'}, this.used, this.left), this.acts), this.values, this.sure);
  }

  /** Asks whether to remove it, or no more. @param {boolean} ask */
  #ask(ask) {
    if (ask) say(this.question, `Remove ${this.name}? ${this.effect()}`);
    this.acts.hidden = ask;
    this.sure.hidden = !ask;
    (ask ? this.keep : this.remove).focus();
  }

  /** @param {Counted} l @param {boolean} enabled */
  show(l, enabled) {
    say(this.caps, caps(l));
    say(this.which, which(l));
    say(this.weights, weights(l));
    say(this.alerts, alertsAt(l));
    const top = l.top?.[0], now = tightest(l);
    const used = now.used ?? 0, held = now.held ?? 0;
    const cap = l.hard ?? l.soft ?? 0;
    const of = `${tokens(used)} of ${tokens(cap)} ${unitOf(l, cap)}`;
    const part = cap > 0 ? ` (${percent(used / cap)})` : '';
    const more = held > 0 ? `, ${tokens(held)} held` : '';
    this.used.hidden = l.used === undefined; // of the default budget nothing is
    say(this.used, top && l.per
      ? `Fullest${(l.values ?? 0) > 1 ? ` of ${tokens(l.values ?? 0)}` : ''} ${NOW[l.window]}: ${valueName(l.per, top.value)}, ${of}${part}${more}.`
      : l.per ? `Nothing is counted ${NOW[l.window]} yet.` : `${of} used ${NOW[l.window]}${part}${more}.`);
    say(this.left, l.used === undefined ? '' : left(l));
    this.#list(l);
    this.bar.hidden = l.used === undefined || l.per !== undefined && !top;
    this.bar.dataset.level = level(l, used + held, enabled);
    place(this.bar, '--to', cap > 0 ? Math.min(1, used / cap) : 1);
    place(this.bar, '--held', cap > 0 ? Math.min(1, (used + held) / cap) : 1);
    const mark = /** @type {HTMLElement} */ (this.bar.firstElementChild);
    mark.hidden = l.soft === undefined || !l.hard;
    place(mark, '--at', l.hard ? Math.min(1, (l.soft ?? 0) / l.hard) : 1);
    this.bar.setAttribute('aria-label', `Used of limit ${l.name}`);
    this.bar.setAttribute('aria-valuemax', String(Math.max(cap, used, 1)));
    this.bar.setAttribute('aria-valuenow', String(used));
    this.bar.setAttribute('aria-valuetext', `${of}${part}${more}`);
  }

  /** The values that are nearest to their cap, where there are several. @param {Counted} l */
  #list(l) {
    const shown = l.per && l.top && l.top.length > 1 ? l.top : [];
    const now = JSON.stringify([l.per, shown, l.hard]);
    if (now === this.#listed) return; // who reads it loses nothing
    this.#listed = now;
    this.values.hidden = shown.length === 0;
    this.values.replaceChildren(...(l.per && shown.length > 0 ? [valuesTable(this.name, l, shown, l.per)] : []));
  }
}

/** @param {Counted} l @param {number} sum used and held: gates decide by both @param {boolean} enabled */
function level(l, sum, enabled) {
  if (!enabled) return 'off';
  if (l.hard !== undefined && sum >= l.hard) return 'hard';
  return l.soft !== undefined && sum >= l.soft ? 'soft' : 'under';
}

/** What is left until the hard cap, and when it starts anew. @param {Counted} l */
function left(l) {
  const {remaining} = tightest(l);
  const until = l.resets_at ? `starts anew on ${utcMoment(new Date(l.resets_at))}` : l.window === 'total' ? 'never starts anew' : '';
  const text = [typeof remaining === 'number' ? `${tokens(remaining)} ${unitOf(l, remaining)} left until the hard cap` : '', until].filter(Boolean).join(', ');
  return text && `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
