import {h, place} from './dom.js';
import {percent, tokens} from './format.js';

const FIRST = 6;

/** Who or what spent the tokens, most first, as bars. */
export class Shares {
  #all = false;
  #shown = '';
  /** @type {import('./api.js').Usage | null} */
  #usage = null;
  #by = '';

  /** @param {HTMLElement} list @param {HTMLButtonElement} more */
  constructor(list, more) {
    this.list = list;
    this.more = more;
    more.addEventListener('click', () => {
      this.#all = !this.#all;
      this.#render();
    });
  }

  /** @param {import('./api.js').Usage} usage @param {string} by */
  show(usage, by) {
    const now = JSON.stringify([by, usage.by]);
    if (now === this.#shown) return;
    if (this.#by !== by) this.#all = false;
    this.#shown = now;
    this.#usage = usage;
    this.#by = by;
    this.#render();
  }

  #render() {
    const rows = this.#usage?.by ?? [];
    /** @param {import('./api.js').Share[]} list */
    const sum = (list) => list.reduce((sum, r) => sum + r.total_tokens, 0);
    const total = (this.#usage?.next ? this.#usage.used_tokens : sum(rows)) || 1;
    const first = this.#all ? rows : rows.slice(0, rows.length === FIRST + 1 ? FIRST + 1 : FIRST);
    const rest = rows.slice(first.length);
    const items = first.map((r) => item(r, r.total_tokens / total, this.#by));
    this.list.replaceChildren(h('ul', {}, ...items));
    this.more.hidden = rows.length <= FIRST + 1;
    this.more.textContent = this.#all ? 'Show fewer' : `${tokens(rest.length)}${this.#usage?.next ? '+' : ''} more, ${percent((total - sum(first)) / total)} together`;
  }
}

/** What people read for a key. @param {string} key @param {string} by */
export const keyName = (key, by) => key || (by === 'run' ? 'no run' : 'system or erased');

/**
 * @param {import('./api.js').Share} share @param {number} part of all
 * @param {string} by
 */
function item(share, part, by) {
  const bar = h('span', {class: 'length', 'aria-hidden': 'true'});
  place(bar, '--to', part);
  return h('li', {},
    h('span', {class: share.key === '' ? 'key nobody' : 'key', title: share.key || null, text: keyName(share.key, by)}),
    h('span', {class: 'amount', title: `${tokens(share.input_tokens)} in, ${tokens(share.output_tokens)} out, ${tokens(share.requests)} calls`},
      tokens(share.total_tokens), h('span', {class: 'hidden', text: ` tokens in ${tokens(share.requests)} calls,`})),
    h('span', {class: 'part', text: percent(part)}),
    bar);
}
