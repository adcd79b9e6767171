import {h, need, place, say} from './dom.js';
import {firstStep, publishCommand} from './empty.js';
import {compact, percent, tokens} from './format.js';
import {raised} from './gauge.js';

/** @typedef {import('./api.js').Port} Port */

const PAGE = 50;
const MOST = 500; // the server's largest page
const TYPING_MS = 150;

/** The list of ports: what each has spent, to search and to choose from. */
export class PortList {
  /** All that the page has seen. @type {Map<string, Port>} */
  #ports = new Map();
  /** The ids in the list, in their order. @type {string[]} */
  #listed = [];
  #total = 0;
  #next = '';
  #query = '';
  #listedFor = '';
  #chosen = '';
  #drawn = '';
  /** @type {AbortController | null} */
  #searching = null;

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
    let typing = 0;
    search.addEventListener('input', () => {
      this.#query = search.value.trim();
      clearTimeout(typing);
      typing = setTimeout(() => this.#search(), TYPING_MS);
      this.#draw();
    });
    this.more.addEventListener('click', async () => {
      const query = this.#query;
      const {ports, next} = await this.api.ports(query, this.#next, PAGE).catch(() => ({ports: [], next: this.#next}));
      if (query !== this.#query) return; // somebody has typed on
      this.#take(ports);
      this.#listed.push(...ports.map((p) => p.port_id).filter((id) => !this.#listed.includes(id)));
      this.#next = next;
      this.#draw();
    });
  }

  /** The list for what is searched, from its beginning. */
  async #search() {
    this.#searching?.abort();
    const searching = this.#searching = new AbortController();
    await this.refresh(searching.signal).catch(() => {});
    if (this.#searching === searching) this.#searching = null;
    this.#draw();
  }

  /** Reads what is listed again. @param {AbortSignal} [signal] */
  async refresh(signal) {
    const query = this.#query;
    const want = this.#listedFor === query ? Math.min(Math.max(PAGE, this.#listed.length), MOST) : PAGE;
    const {ports, next, total} = await this.api.ports(query, '', want, signal);
    if (query !== this.#query) return;
    const beyond = this.#listedFor === query && next ? this.#listed.slice(ports.length) : [];
    if (!next && query === '') this.#ports.clear(); // some may have been deleted
    this.#take(ports);
    this.#listed = [...ports.map((p) => p.port_id), ...beyond];
    if (beyond.length === 0) this.#next = next;
    [this.#total, this.#listedFor] = [total ?? this.#listed.length, query];
    this.#draw();
  }

  /** @param {Port[]} ports */
  #take(ports) {
    for (const p of ports) this.#ports.set(p.port_id, p);
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
    for (let after = ''; !this.#ports.has(id);) {
      const {ports, next} = await this.api.ports(id, after, MOST);
      this.#take(ports.filter((p) => p.port_id === id));
      if (!(after = next)) break;
    }
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

  /** Those that the page has seen and that match what is typed: until the server has answered. */
  #guessed() {
    const q = this.#query.toLowerCase();
    return this.#sorted().filter((p) => p.port_id.toLowerCase().includes(q) || p.name.toLowerCase().includes(q)).slice(0, PAGE);
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
    const searching = this.#query !== this.#listedFor;
    const shown = searching ? this.#guessed() : this.#listed.flatMap((id) => this.#ports.get(id) ?? []);
    const chosen = this.#ports.get(this.#chosen);
    if (chosen && this.#query === '' && !shown.includes(chosen)) shown.unshift(chosen); // it stands further down
    const state = JSON.stringify([shown, this.#chosen, this.#total, this.#next, this.#query, searching]);
    if (state === this.#drawn) return;
    this.#drawn = state;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest?.('.port-list a') ?? null)?.dataset.port;
    if (this.#ports.size === 0) {
      this.list.replaceChildren(...firstStep('ports-empty', 'No port yet', 'A port is there as soon as its first event is. To report one, run this beside the server:', publishCommand('marina-7'), 'h2'));
    } else if (shown.length === 0) {
      this.list.replaceChildren(h('p', {class: 'none', text: searching ? 'Searching…' : `No port matches “${this.#query}”.`}));
    } else {
      this.list.replaceChildren(h('ul', {}, ...shown.map((p) => this.#row(p))));
    }
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-port="${CSS.escape(focused)}"]`))?.focus({preventScroll: true});
    this.more.hidden = shown.length === 0 || searching || !this.#next;
    say(this.count, searching || this.#ports.size === 0 ? '' : this.#query !== '' ? `${tokens(this.#total)} found` : tokens(this.#total));
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
