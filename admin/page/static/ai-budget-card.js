/**
 * <ai-budget-card port="p1"></ai-budget-card>: all of a port's AI budget, live: what was used and by
 * whom, caps and limits to change, alerts, and the history of changes. No dependencies, no inline
 * code or style. docs/card.md tells how to embed it.
 *
 *   <script type="module" src="/static/ai-budget-card.js"></script>
 *
 * Attributes: port (required); name, the port's display name; api, the API's base,
 * default /api/v1; login, where to sign in, default /login; range, by and step, what is looked at,
 * which the card sets, too, when somebody looks at something else. What stands between the
 * tags shows until the card is there. It acts as whoever is signed in at the API, so it
 * must be served from the API's own site.
 *
 * Events: "budget-load" after each answer and "budget-change" after a save or an undo, both with
 * the budget as detail; "budget-view" when somebody looks at something else, with {range, by, step}.
 * Property: unsaved, whether leaving would lose edits.
 */
import {Api, DEFAULT, Problem} from './api.js';
import {Attention} from './attention.js';
import {h, need, say} from './dom.js';
import {Editor} from './editor.js';
import {Facts} from './facts.js';
import {sentence, utcClock, utcMoment} from './format.js';
import {Gauge, level, raised} from './gauge.js';
import {ChangeHistory} from './history.js';
import {Limits} from './limits.js';
import {Poll} from './poll.js';
import {sheets} from './sheets.js';
import {skeleton} from './template.js';
import {UsageView} from './usage.js';

/** @typedef {import('./api.js').Budget} Budget */

const EVERY_MS = 2000;

export class BudgetCard extends HTMLElement {
  static observedAttributes = ['port', 'name', 'api', 'range', 'by', 'step'];

  /** @type {Budget | null} */
  #budget = null;
  #clock = 0;

  constructor() {
    super();
    const root = this.attachShadow({mode: 'open'});
    root.adoptedStyleSheets = sheets;
    root.append(skeleton());
    this.root = root;
    this.api = new Api('/api/v1');
    this.card = need(root, '.card');
    this.gauge = new Gauge(need(root, '.gauge'));
    this.facts = new Facts(need(root, '.spend'));
    const target = () => ({port: this.port, api: this.api, login: this.login});
    /** @type {import('./editor.js').On} */
    const on = {
      saving: () => this.poll.stop(),
      saved: (b) => {
        if (b) this.#receive(b);
        if (b) this.dispatchEvent(new CustomEvent('budget-change', {detail: b, bubbles: true, composed: true}));
        if (this.isConnected) this.poll.start();
      },
    };
    this.editor = new Editor(need(root, 'form.budget'), target, on);
    this.limits = new Limits(need(root, '.limits'), target, on);
    this.poll = new Poll((signal) => this.#load(signal), {every: EVERY_MS});
    this.usage = new UsageView(need(root, '.body'), target, () => this.#looked());
    this.attention = new Attention(need(root, '.body'), target, () => this.poll.now());
    this.history = new ChangeHistory(need(root, '.history'), target, {...on, named: (name) => name ? this.setAttribute('name', name) : this.removeAttribute('name')});
    this.guard = (/** @type {BeforeUnloadEvent} */ e) => { if (this.unsaved) e.preventDefault(); };
  }

  get port() {
    return this.getAttribute('port') ?? '';
  }

  get login() {
    return this.getAttribute('login') ?? '/login';
  }

  get unsaved() {
    return this.editor.unsaved || this.limits.unsaved;
  }

  connectedCallback() {
    this.#restart();
    this.usage.chart.resized.observe(this.usage.chart.plot);
    window.addEventListener('beforeunload', this.guard);
    this.#clock = setInterval(() => this.#tick(), 1000);
  }

  disconnectedCallback() {
    this.poll.stop();
    this.editor.reset();
    this.limits.reset();
    this.history.reset();
    this.usage.chart.resized.disconnect();
    window.removeEventListener('beforeunload', this.guard);
    clearInterval(this.#clock);
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (name === 'name') {
      this.#title();
      this.history.renamed();
    } else if (name === 'port' || name === 'api') this.#restart();
    else this.#look();
  }

  /** Looks at what the attributes say. */
  #look() {
    const next = viewOf(this);
    if (JSON.stringify(next) === JSON.stringify(this.usage.view)) return;
    this.usage.view = next;
    this.poll.now();
  }

  /** Somebody looks at something else: the attributes say so. */
  #looked() {
    const view = this.usage.view;
    if (!this.usage.range.value) return this.poll.now(); // no range, and it says so
    for (const [name, value] of Object.entries(view)) value ? this.setAttribute(name, value) : this.removeAttribute(name);
    this.poll.now();
    this.dispatchEvent(new CustomEvent('budget-view', {detail: view, bubbles: true, composed: true}));
  }

  #restart() {
    this.poll.stop();
    this.editor.reset();
    this.limits.reset();
    this.api = new Api(this.getAttribute('api') ?? '/api/v1');
    this.#budget = null;
    this.usage.reset();
    this.usage.view = viewOf(this);
    this.attention.reset();
    this.history.reset();
    this.#title();
    this.#trouble(null);
    for (const n of this.root.querySelectorAll('.notices .notice')) /** @type {HTMLElement} */ (n).hidden = true;
    need(this.root, '.body').hidden = true;
    need(this.root, '.ghost').hidden = false;
    this.card.setAttribute('aria-busy', 'true');
    this.#pulse('', 'Loading');
    if (this.port) this.poll.start();
    else this.#trouble('This card has no port', 'Give the element a port attribute.');
  }

  /** Who may only look sees what is stored, and nothing to change it with. @param {boolean} change */
  #allow(change) {
    this.card.classList.toggle('view-only', !change);
    for (const input of this.root.querySelectorAll('form.budget input')) /** @type {HTMLInputElement} */ (input).disabled = !change;
  }

  #title() {
    const name = this.getAttribute('name');
    say(need(this.root, '#name'), name || (this.port === DEFAULT ? 'Default budget' : this.port));
    say(need(this.root, '.id'), name && name !== this.port ? this.port : '');
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    try {
      const budget = await this.api.budget(this.port, signal);
      signal.throwIfAborted();
      this.#receive(budget);
      if (this.port === DEFAULT) return;
      await this.usage.load(budget, signal);
      await this.attention.load(signal);
    } catch (e) {
      if (!signal.aborted) this.#failed(e);
      throw e;
    }
  }

  /** @param {Budget} b */
  #receive(b) {
    this.#budget = b;
    this.#trouble(null);
    this.#pulse('live', 'Live');
    const whole = this.port === DEFAULT; // nothing is used of it: no port has it by itself
    if (whole) for (const part of ['.spend', '.look', '.usage']) need(this.root, part).hidden = true;
    say(need(this.root, '.default-about'), whole ? 'It binds every port that has no budget of its own, each by itself: those that nobody has seen yet, too. A hard cap of 0 means: no budget, no calls.' : '');
    if (!whole) {
      say(need(this.root, '.as-of'), utcClock(new Date(b.as_of)));
      const now = this.api.now();
      this.gauge.show(raised(b, now));
      this.facts.show(raised(b, now), now);
      this.card.dataset.level = level(b);
      this.#notices(b);
    }
    this.#allow(b.may_change);
    this.editor.receive(b);
    this.limits.receive(b);
    this.history.receive(b);
    need(this.root, '.ghost').hidden = true;
    need(this.root, '.body').hidden = false;
    this.card.removeAttribute('aria-busy');
    this.dispatchEvent(new CustomEvent('budget-load', {detail: b, bubbles: true, composed: true}));
  }

  /** @param {Budget} b */
  #notices(b) {
    const reset = utcMoment(new Date(b.resets_at));
    const now = level(b);
    const soft = need(this.root, '.notice.soft'), hard = need(this.root, '.notice.hard');
    say(need(soft, 'span'), 'Calls are still allowed; every answer of the gate now carries a warning.');
    say(need(hard, 'span'), `New calls are refused until ${reset}, or until the cap is raised.`);
    soft.hidden = now !== 'soft';
    hard.hidden = now !== 'hard';
  }

  #tick() {
    if (this.#budget && this.port !== DEFAULT && !document.hidden) this.facts.tick(this.#budget, this.api.now());
  }

  /** @param {unknown} e */
  #failed(e) {
    const kept = this.#budget ? ` These are the figures of ${utcClock(new Date(this.#budget.as_of))}.` : '';
    if (!(e instanceof Problem)) {
      this.#pulse('off', 'Offline');
      return this.#trouble('The server cannot be reached.', `Trying again by itself.${kept}`, this.#retry());
    }
    if (e.status === 401) {
      this.#pulse('off', 'Signed out');
      return this.#trouble('You are signed out.', `${kept} Sign in, and this card goes on.`, h('a', {href: this.login, class: 'act', text: 'Sign in'}));
    }
    if (e.status === 403) {
      this.#pulse('off', 'No access');
      return this.#trouble('You may not manage this port.', sentence(e.message));
    }
    this.#pulse('off', 'Not live');
    this.#trouble(sentence(e.title), `${e.message === e.title ? '' : sentence(e.message)}${kept}`, this.#retry());
  }

  #retry() {
    return h('button', {type: 'button', class: 'act', text: 'Try now', onclick: () => this.poll.now()});
  }

  /** @param {string | null} title @param {string} [text] @param {HTMLElement} [act] */
  #trouble(title, text = '', act) {
    const notice = need(this.root, '.trouble');
    notice.hidden = title === null;
    if (title === null) return notice.replaceChildren();
    need(this.root, '.ghost').hidden = true;
    this.card.removeAttribute('aria-busy');
    if (notice.dataset.says === title + text && notice.childNodes.length > 0) return; // said already
    notice.dataset.says = title + text;
    notice.replaceChildren(h('p', {}, h('strong', {text: title}), ' ', text), ...(act ? [act] : []));
  }

  /** @param {string} state @param {string} text */
  #pulse(state, text) {
    need(this.root, '.pulse').dataset.state = state;
    say(need(this.root, '.pulse-text'), text);
  }
}

/** What the attributes say to look at. @param {Element} e @returns {import('./usage.js').View} */
const viewOf = (e) => ({range: e.getAttribute('range') ?? 'current', by: e.getAttribute('by') ?? 'feature', step: e.getAttribute('step') ?? ''});

customElements.define('ai-budget-card', BudgetCard);
