import {h, need, place, say} from './dom.js';
import {firstStep, publishCommand} from './empty.js';
import {compact, percent, tokens} from './format.js';
import {raised} from './gauge.js';

/** @typedef {import('./api.js').Port} Port */

const PAGE = 50;
const SEARCH_PAGE = 500;
const SEARCH_MOST = 10_000;

/** The list of ports: what each has spent, to search and to choose from. */
export class PortList {
  /** @type {Map<string, Port>} */
  #ports = new Map();
  #next = '';
  #complete = false;
  #shown = PAGE;
  #query = '';
  #chosen = '';
  #drawn = '';
  /** @type {Promise<void> | null} */
  #filling = null;

  /**
   * @param {HTMLElement} root @param {import('./api.js').Api} api
   * @param {(port: Port) => void} choose
   */
  constructor(root, api, choose) {
    this.api = api;
    this.choose = choose;
    this.list = need(root, '.port-list');
    this.count = need(root, '.count');
    this.more = need(root, '.more');
    const search = /** @type {HTMLInputElement} */ (need(root, '#search'));
    search.addEventListener('input', () => {
      this.#query = search.value.trim().toLowerCase();
      this.#shown = PAGE;
      this.#draw();
      if (this.#query !== '') this.#fill();
    });
    this.more.addEventListener('click', async () => {
      this.#shown += PAGE;
      if (this.#ports.size < this.#shown && !this.#complete) await this.#load(PAGE).catch(() => {});
      this.#draw();
    });
  }

  /** Reads what is shown again. @param {AbortSignal} [signal] */
  async refresh(signal) {
    const first = this.#ports.size === 0;
    const want = Math.max(PAGE, Math.min(this.#shown, SEARCH_PAGE));
    const {ports, next} = await this.api.ports('', want, signal);
    for (const p of ports) this.#ports.set(p.port_id, p);
    if (first || ports.length >= this.#ports.size) [this.#next, this.#complete] = [next, !next];
    if (!next && ports.length < this.#ports.size) this.#keepOnly(ports); // some were deleted
    this.#draw();
  }

  /** @param {Port[]} ports */
  #keepOnly(ports) {
    this.#ports = new Map(ports.map((p) => [p.port_id, p]));
    [this.#next, this.#complete] = ['', true];
  }

  /** @param {number} limit */
  async #load(limit) {
    const {ports, next} = await this.api.ports(this.#next, limit);
    for (const p of ports) this.#ports.set(p.port_id, p);
    [this.#next, this.#complete] = [next, !next];
  }

  /** A search looks at every port, so it reads them all, once. */
  #fill() {
    this.#filling ??= (async () => {
      while (!this.#complete && this.#ports.size < SEARCH_MOST) {
        await this.#load(SEARCH_PAGE);
        this.#draw();
      }
    })().catch(() => {}).finally(() => { this.#filling = null; this.#draw(); });
  }

  /** @param {string} id */
  get(id) {
    return this.#ports.get(id);
  }

  /**
   * A port that may stand further down than the list has been read.
   * @param {string} id
   */
  async find(id) {
    while (!this.#ports.has(id) && !this.#complete && this.#ports.size < SEARCH_MOST) await this.#load(SEARCH_PAGE);
    this.#draw();
    return this.#ports.get(id);
  }

  /** The one at the top of the whole list. */
  first() {
    return this.#sorted()[0];
  }

  #sorted() {
    return [...this.#ports.values()].sort((a, b) => (a.port_id < b.port_id ? -1 : 1));
  }

  /** @param {string} id */
  mark(id) {
    this.#chosen = id;
    this.#draw();
  }

  /** Takes what the card knows already. @param {import('./api.js').Budget} b */
  update(b) {
    const port = this.#ports.get(b.port_id);
    if (!port) return;
    port.used_tokens = b.used_tokens;
    port.budget = {...port.budget, enabled: b.enabled, soft_cap_tokens: b.soft_cap_tokens, hard_cap_tokens: b.hard_cap_tokens, period: b.period,
      extra_tokens: b.extra_tokens, extra_until: b.extra_until, default: b.default, version: b.version};
    this.#draw();
  }

  #draw() {
    const found = this.#sorted().filter((p) => this.#query === '' || p.port_id.toLowerCase().includes(this.#query) || p.name.toLowerCase().includes(this.#query));
    const shown = found.slice(0, this.#shown);
    const state = JSON.stringify([shown, this.#chosen, found.length, this.#complete, this.#query, this.#filling !== null]);
    if (state === this.#drawn) return;
    this.#drawn = state;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest?.('.port-list a') ?? null)?.dataset.port;
    if (this.#ports.size === 0) {
      this.list.replaceChildren(...firstStep('ports-empty', 'No port yet', 'A port is there as soon as its first event is. Publish one:', publishCommand('marina-7'), 'h2'));
    } else if (shown.length === 0) {
      this.list.replaceChildren(h('p', {class: 'none', text: this.#filling ? 'Searching…' : `No port matches “${this.#query}”.`}));
    } else {
      this.list.replaceChildren(h('ul', {}, ...shown.map((p) => this.#row(p))));
    }
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-port="${CSS.escape(focused)}"]`))?.focus({preventScroll: true});
    this.more.hidden = shown.length === 0 || (found.length <= this.#shown && (this.#complete || this.#query !== ''));
    say(this.count, this.#ports.size === 0 ? '' : this.#query !== '' ? `${tokens(found.length)} found` : this.#complete ? tokens(found.length) : `${tokens(found.length)} so far`);
  }

  /** @param {Port} p */
  #row(p) {
    const {cap, text, state, ratio} = spend(p, this.api.now());
    const bar = h('span', {class: 'mini', hidden: cap === null, 'data-state': state, 'aria-hidden': 'true'});
    place(bar, '--to', Math.min(1, ratio));
    return h('li', {}, h('a', {
      href: `/?port=${p.port_id}`, 'data-port': p.port_id, 'aria-current': p.port_id === this.#chosen ? 'true' : null,
      onclick: (/** @type {MouseEvent} */ e) => {
        if (e.metaKey || e.ctrlKey || e.shiftKey) return;
        e.preventDefault();
        this.choose(p);
      },
    },
    h('span', {class: 'port-name', text: p.name || p.port_id}),
    h('span', {class: 'port-spend', text}),
    bar,
    state === 'under' || state === 'none' ? null : h('span', {class: 'port-state', 'data-state': state, text: {hard: 'Hard cap reached', soft: 'Soft cap reached', off: 'Caps not enforced'}[state]}),
    cap === null ? null : h('span', {class: 'hidden', text: `of ${tokens(cap)}`}),
    p.budget.default ? h('span', {class: 'port-default', text: 'Default budget'}) : null));
  }
}

/** How a port stands. @param {Port} p @param {number} now */
function spend(p, now) {
  const {enabled, soft_cap_tokens: soft, hard_cap_tokens: hard} = raised(p.budget, now);
  const cap = hard ?? soft;
  const used = p.used_tokens;
  const ratio = cap === null ? 0 : cap === 0 ? 1 : used / cap;
  const state = cap === null ? 'none' : !enabled ? 'off' : hard !== null && used >= hard ? 'hard' : soft !== null && used >= soft ? 'soft' : 'under';
  const text = cap === null ? compact(used) : `${compact(used)} · ${percent(ratio)}`;
  return {cap, text, state: /** @type {'none' | 'off' | 'hard' | 'soft' | 'under'} */ (state), ratio};
}
