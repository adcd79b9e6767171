import {h, place} from './dom.js';
import {percent, tokens} from './format.js';

/**
 * One bar: what is used and held, where it is heading, and the two caps as marks on
 * it. The bar ends at the hard cap, or further out when more than that is used or
 * projected, so that an overshoot is seen as one.
 */
export class Gauge {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.used = h('div', {class: 'used'});
    this.held = h('div', {class: 'held'});
    this.heading = h('div', {class: 'heading'});
    this.beyond = h('div', {class: 'beyond'});
    this.meter = h('div', {class: 'track', role: 'meter', 'aria-label': 'Tokens used', 'aria-valuemin': 0},
      this.beyond, this.heading, this.held, this.used);
    this.soft = mark('soft');
    this.hard = mark('hard');
    this.scale = h('div', {class: 'ticks', 'aria-hidden': 'true'});
    root.replaceChildren(this.soft, this.meter, this.scale, this.hard);
    this.legend = {used: entry('used', 'Used'), held: entry('held', 'Held for running calls'), heading: entry('heading', 'Projected by the reset')};
    this.key = h('ul', {class: 'legend gauge-legend', 'aria-label': 'Parts of the bar'}, ...Object.values(this.legend));
    root.after(this.key);
  }

  /** @param {import('./api.js').Budget} b as {@link raised} makes it */
  show(b) {
    const {used_tokens: used, held_tokens: held, soft_cap_tokens: soft, hard_cap_tokens: hard} = b;
    const projected = b.projected_tokens ?? 0;
    const end = barEnd(b);
    this.root.hidden = this.key.hidden = soft === null && hard === null; // a bar of nothing is always full
    this.legend.used.hidden = used === 0;
    this.legend.held.hidden = held === 0;
    this.legend.heading.hidden = projected <= used;
    const at = (/** @type {number} */ n) => Math.min(1, n / end);
    place(this.used, '--to', at(used));
    place(this.held, '--from', at(used));
    place(this.held, '--to', at(used + held));
    place(this.heading, '--to', at(Math.max(projected, used)));
    this.heading.classList.toggle('none', projected <= used);
    place(this.beyond, '--from', hard === null ? 1 : at(hard));
    setMark(this.soft, soft === null ? null : at(soft), soft, 'Soft cap');
    setMark(this.hard, hard === null ? null : at(hard), hard, 'Hard cap');
    this.meter.dataset.level = this.key.dataset.level = level(b);

    const of = hard ?? soft;
    this.meter.setAttribute('aria-valuemax', String(Math.max(of ?? used, used, 1)));
    this.meter.setAttribute('aria-valuenow', String(used));
    this.meter.setAttribute('aria-valuetext', [
      of === null ? `${tokens(used)} tokens, no cap` : `${tokens(used)} of ${tokens(of)} tokens${of > 0 ? `, ${percent(used / of)}` : ''}`,
      soft !== null && hard !== null ? `soft cap at ${tokens(soft)}` : '',
      held > 0 ? `${tokens(held)} held` : '',
    ].filter(Boolean).join('; '));
  }
}

/**
 * A budget with the hard cap of now: extra tokens are in it, or gone if they have ended.
 * @template {import('./api.js').Settings} T
 * @param {T} b @param {number} now @returns {T}
 */
export function raised(b, now) {
  const {hard_cap_tokens: hard, extra_tokens: extra, extra_until: until} = b;
  if (hard === null || !extra || !until || now >= Date.parse(until)) return {...b, extra_tokens: undefined};
  return {...b, hard_cap_tokens: Math.min(hard + extra, Number.MAX_SAFE_INTEGER)};
}

/** How far the spend has come: under, soft or hard. @param {import('./api.js').Budget} b */
export function level(b) {
  if (!b.enabled) return 'off';
  if (b.hard_cap_reached) return 'hard';
  return b.soft_cap_reached ? 'soft' : 'under';
}

/** @param {import('./api.js').Budget} b */
function barEnd(b) {
  const cap = Math.max(b.hard_cap_tokens ?? 0, b.soft_cap_tokens ?? 0);
  const spent = b.used_tokens + b.held_tokens;
  const projected = b.projected_tokens ?? 0;
  if (cap === 0) return Math.max(spent, projected, 1);
  const room = b.hard_cap_tokens === null ? cap * 1.2 : cap; // a soft cap alone is no end
  return Math.max(room, spent, Math.min(projected, cap * 1.3));
}

/** @param {string} part of the bar @param {string} text */
const entry = (part, text) => h('li', {}, h('span', {class: `swatch part-${part}`, 'aria-hidden': 'true'}), text);

/** @param {string} kind */
const mark = (kind) => h('div', {class: `mark ${kind}`, 'aria-hidden': 'true', hidden: true}, h('span', {class: 'label'}));

/** @param {HTMLElement} e @param {number | null} at @param {number | null} cap @param {string} name */
function setMark(e, at, cap, name) {
  e.hidden = at === null;
  if (at === null || cap === null) return;
  place(e, '--at', at);
  const label = /** @type {HTMLElement} */ (e.firstElementChild);
  label.replaceChildren(name, ' ', h('b', {text: tokens(cap)}));
}
