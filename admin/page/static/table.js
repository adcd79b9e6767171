import {h, need, place, say} from './dom.js';
import {percent, tokens, utcDay} from './format.js';
import {portLink, tableLink} from './links.js';
import {spark} from './spark.js';

/** @typedef {import('./api.js').Port} Port */

const PAGE = 50;
const MOST = 500; // the server's largest page
const TYPING_MS = 150;
const STATES = /** @type {Record<string, string>} */ ({none: 'No cap', fine: 'Below its caps', soft: 'Soft cap reached', hard: 'Hard cap reached', disabled: 'Caps not enforced'});
const SINCE = {day: 'today', week: 'this week', month: 'this month'};
const SORTS = ['name', 'used', 'share', 'last_call'];

/** The table of ports: to search, to sort and to choose from. */
export class PortTable {
  /** @type {Port[]} */
  #rows = [];
  #next = '';
  #total = 0;
  #q = '';
  #sort = '';
  #state = '';
  #drawn = '';

  /** @param {HTMLElement} root @param {import('./api.js').Api} api @param {() => void} now asks for a refresh */
  constructor(root, api, now) {
    this.root = root;
    this.api = api;
    this.now = now;
    this.search = /** @type {HTMLInputElement} */ (need(root, '#table-search'));
    this.filter = /** @type {HTMLSelectElement} */ (need(root, '#table-state'));
    this.body = need(root, 'tbody');
    this.more = /** @type {HTMLButtonElement} */ (need(root, '.more'));
    let typing = 0;
    this.search.addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#ask(this.search.value.trim(), this.#sort, this.#state), TYPING_MS);
    });
    this.filter.addEventListener('change', () => this.#ask(this.#q, this.#sort, this.filter.value));
    for (const b of root.querySelectorAll('th button')) b.addEventListener('click', () => {
      const sort = b.getAttribute('data-sort') ?? '';
      this.#ask(this.#q, sort === this.#sort ? '' : sort, this.#state);
    });
    this.more.addEventListener('click', () => this.#showMore());
  }

  /** Takes what the address asks for. */
  read() {
    const query = new URLSearchParams(location.search);
    this.#set(query.get('q') ?? '', query.get('sort') ?? '', query.get('state') ?? '');
    if (this.search.value.trim() !== this.#q) this.search.value = this.#q;
    this.filter.value = this.#state;
  }

  /** @param {string} q @param {string} sort @param {string} state */
  #set(q, sort, state) {
    if (!SORTS.includes(sort)) sort = '';
    if (!(state in STATES)) state = '';
    if (q !== this.#q || sort !== this.#sort || state !== this.#state) this.#rows = []; // another list
    [this.#q, this.#sort, this.#state] = [q, sort, state];
    for (const b of this.root.querySelectorAll('th button')) {
      const name = b.getAttribute('data-sort');
      b.closest('th')?.setAttribute('aria-sort', name !== sort ? 'none' : name === 'name' ? 'ascending' : 'descending');
    }
  }

  /** @param {string} q @param {string} sort @param {string} state */
  #ask(q, sort, state) {
    this.#set(q, sort, state);
    history.replaceState(null, '', tableLink({q, sort, state}));
    this.root.setAttribute('aria-busy', 'true');
    this.now();
  }

  #asked() {
    return JSON.stringify([this.#q, this.#sort, this.#state]);
  }

  /** Reads what is listed again. @param {AbortSignal} [signal] */
  async refresh(signal) {
    const asked = this.#asked();
    const want = Math.min(Math.max(PAGE, this.#rows.length), MOST);
    const {ports, next, total} = await this.api.ports(this.#q, '', want, signal, this.#sort, this.#state);
    if (asked !== this.#asked()) return this.now(); // somebody has typed on
    const beyond = next && this.#rows.length > ports.length ? this.#rows.slice(ports.length) : [];
    this.#rows = [...ports, ...beyond.filter((b) => !ports.some((p) => p.port_id === b.port_id))];
    if (beyond.length === 0) this.#next = next;
    this.#total = total ?? this.#rows.length;
    this.#draw();
  }

  async #showMore() {
    const asked = this.#asked(), before = this.#rows.length;
    this.more.disabled = true;
    const page = await this.api.ports(this.#q, this.#next, PAGE, undefined, this.#sort, this.#state).catch(() => null);
    this.more.disabled = false;
    if (!page || asked !== this.#asked()) return;
    this.#rows.push(...page.ports.filter((p) => !this.#rows.some((r) => r.port_id === p.port_id)));
    this.#next = page.next;
    this.#draw();
    /** @type {HTMLElement | null} */ (this.body.querySelectorAll('a')[before] ?? null)?.focus();
  }

  #draw() {
    this.root.removeAttribute('aria-busy');
    this.more.hidden = !this.#next;
    const narrowed = this.#q !== '' || this.#state !== '';
    say(need(this.root, '.table-count'), narrowed ? `${tokens(this.#total)} found` : this.#total === 1 ? '1 port' : `${tokens(this.#total)} ports`);
    const state = JSON.stringify([this.#rows, this.#next]);
    if (state === this.#drawn && this.body.childElementCount > 0) return;
    this.#drawn = state;
    const none = need(this.root, '.table-none');
    none.hidden = this.#rows.length > 0;
    need(this.root, 'table').hidden = this.#rows.length === 0;
    if (this.#rows.length === 0) {
      const what = [this.#q ? `matches “${this.#q}”` : '', this.#state ? `is in the state “${STATES[this.#state]}”` : ''].filter(Boolean).join(' and ');
      none.replaceChildren(h('p', {text: `No port ${what}.`}), h('button', {type: 'button', class: 'quiet', text: 'Show all ports', onclick: () => {
        this.search.value = this.filter.value = '';
        this.#ask('', this.#sort, '');
        this.search.focus();
      }}));
    }
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest?.('tbody a') ?? null)?.dataset.port;
    this.body.replaceChildren(...this.#rows.map((p) => row(p, this.api.now())));
    if (focused) /** @type {HTMLElement | null} */ (this.body.querySelector(`[data-port="${CSS.escape(focused)}"]`))?.focus({preventScroll: true});
  }
}

/** @param {Port} p @param {number} now */
function row(p, now) {
  const bar = h('span', {class: 'mini', 'aria-hidden': 'true', 'data-state': p.state});
  place(bar, '--to', Math.min(1, p.share ?? 0));
  const state = h('span', {class: 'state', 'data-state': p.state, text: STATES[p.state] ?? p.state});
  return h('tr', {},
    h('th', {scope: 'row'}, h('a', {href: portLink(p.port_id), 'data-port': p.port_id, text: p.name || p.port_id}),
      p.name ? h('span', {class: 'port-id', text: p.port_id}) : null, h('span', {class: 'state-below'}, state.cloneNode(true))),
    h('td', {class: 'n'}, tokens(p.used_tokens), h('span', {class: 'dim since', text: SINCE[p.budget.period]})),
    h('td', {class: 'share'}, p.share === null ? h('span', {class: 'dim', text: 'no hard cap'}) : h('span', {}, percent(p.share), p.tightest === 'port' ? null : h('span', {class: 'dim', text: ` ${p.tightest}`})), p.share === null ? null : bar),
    h('td', {class: 'wide'}, spark(p.days)),
    h('td', {class: 'mid'}, state),
    h('td', {class: 'wide n'}, lastCall(p.last_call_on, now)));
}

/** @param {string | null} day @param {number} now */
function lastCall(day, now) {
  if (!day) return h('span', {class: 'dim', text: 'never'});
  const ago = Math.floor(now / 86_400_000) - Date.parse(day) / 86_400_000;
  const date = new Date(day);
  return h('time', {datetime: day, text: ago <= 0 ? 'today' : ago === 1 ? 'yesterday' : ago < 300 ? utcDay(date) : day});
}
