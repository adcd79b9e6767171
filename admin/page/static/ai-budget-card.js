/**
 * <ai-budget-card port="p1"></ai-budget-card>: what a port has spent of its AI
 * budget, live, and its caps and limits to change. No dependencies, no inline code or style.
 *
 *   <script type="module" src="/static/ai-budget-card.js"></script>
 *
 * Attributes: port (required); name, the port's display name; api, the API's base,
 * default /api/v1; login, where to sign in, default /login. What stands between the
 * tags shows until the card is there. It acts as whoever is signed in at the API, so it
 * must be served from the API's own site.
 *
 * Events: "budget-load" after each answer and "budget-change" after a save, both with
 * the budget as detail. Property: unsaved, whether leaving would lose edits.
 */
import {Api, DEFAULT, Problem} from './api.js';
import {DaysChart, everyDay} from './days.js';
import {h, need, say} from './dom.js';
import {Editor} from './editor.js';
import {firstStep, publishCommand} from './empty.js';
import {Facts, THIS} from './facts.js';
import {localTime, sentence, utcMonth, utcMoment} from './format.js';
import {Gauge, level, raised} from './gauge.js';
import {Limits} from './limits.js';
import {Poll} from './poll.js';
import {Shares} from './shares.js';
import {sheets} from './sheets.js';
import {skeleton} from './template.js';

/** @typedef {import('./api.js').Budget} Budget */

const EVERY_MS = 2000;
const USAGE_AT_LEAST_MS = 30_000;

export class BudgetCard extends HTMLElement {
  static observedAttributes = ['port', 'name', 'api'];

  /** @type {Budget | null} */
  #budget = null;
  #usageOf = '';
  #usageAt = 0;
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
    this.days = new DaysChart(need(root, '.plot'), need(root, '.readout'), need(root, 'details .scroll'));
    this.shares = new Shares(need(root, '.share-list'), need(root, '.more'));
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
    for (const radio of root.querySelectorAll('[name=by]')) radio.addEventListener('change', () => this.poll.now());
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
    this.days.resized.observe(this.days.plot);
    window.addEventListener('beforeunload', this.guard);
    this.#clock = setInterval(() => this.#tick(), 1000);
  }

  disconnectedCallback() {
    this.poll.stop();
    this.editor.reset();
    this.limits.reset();
    this.days.resized.disconnect();
    window.removeEventListener('beforeunload', this.guard);
    clearInterval(this.#clock);
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (name === 'name') this.#title();
    else this.#restart();
  }

  #restart() {
    this.poll.stop();
    this.editor.reset();
    this.limits.reset();
    this.api = new Api(this.getAttribute('api') ?? '/api/v1');
    this.#budget = null;
    this.#usageOf = '';
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

  #title() {
    const name = this.getAttribute('name');
    say(need(this.root, '#name'), name || (this.port === DEFAULT ? 'Default budget' : this.port));
    say(need(this.root, '.id'), name && name !== this.port ? this.port : '');
  }

  get #by() {
    return /** @type {import('./api.js').Dimension} */ (need(this.root, '[name=by]:checked').getAttribute('value'));
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    try {
      const budget = await this.api.budget(this.port, signal);
      signal.throwIfAborted();
      this.#receive(budget);
      if (this.port === DEFAULT) return;
      await this.#loadUsage(budget, signal);
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
    if (whole) need(this.root, '.spend').hidden = need(this.root, '.usage').hidden = true;
    say(need(this.root, '.default-about'), whole ? 'It binds every port that has no budget of its own, each by itself: those that nobody has seen yet, too. A hard cap of 0 means: no budget, no calls.' : '');
    if (!whole) {
      say(need(this.root, '.as-of'), localTime(new Date(b.as_of)));
      const now = this.api.now();
      this.gauge.show(raised(b, now));
      this.facts.show(raised(b, now), now);
      this.card.dataset.level = level(b);
      this.#notices(b);
    }
    this.editor.receive(b);
    this.limits.receive(b);
    need(this.root, '.ghost').hidden = true;
    need(this.root, '.body').hidden = false;
    this.card.removeAttribute('aria-busy');
    this.dispatchEvent(new CustomEvent('budget-load', {detail: b, bubbles: true, composed: true}));
  }

  /** Reads the breakdowns, when they may have changed. @param {Budget} b @param {AbortSignal} signal */
  async #loadUsage(b, signal) {
    const by = this.#by;
    const of = JSON.stringify([this.port, by, b.period_start, b.period, b.used_tokens, b.hard_cap_tokens]);
    if (of === this.#usageOf && Date.now() - this.#usageAt < USAGE_AT_LEAST_MS) return;
    const now = this.api.now();
    const range = b.period === 'month' ? 'current' : new Date(now).toISOString().slice(0, 7);
    const [shares, days] = await Promise.all([this.api.usage(this.port, by, 'current', signal), this.api.usage(this.port, 'day', range, signal)]);
    signal.throwIfAborted();
    if (by !== this.#by) return this.poll.now();
    this.#usageOf = of;
    this.#usageAt = Date.now();
    const nothing = shares.requests === 0 && days.requests === 0;
    need(this.root, '.usage').hidden = nothing;
    this.#empty(nothing, b);
    this.shares.show(shares, by);
    this.days.show({...everyDay(days, now), pace: evenPace(b)});
    say(need(this.root, '#days-title'), b.period === 'month' ? 'Tokens per day' : `Tokens per day, ${utcMonth(new Date(now))}`);
    need(this.root, '.csv').setAttribute('href', this.api.csv(this.port, by, 'current'));
  }

  /** @param {boolean} nothing @param {Budget} b */
  #empty(nothing, b) {
    const empty = need(this.root, '.empty');
    const title = `No usage ${b.period === 'month' ? 'this month' : THIS[b.period]} yet`;
    if (nothing && empty.hidden) empty.replaceChildren(...firstStep('empty-title', title, 'Publish an event, and it shows up here within a second or two.', publishCommand(this.port)));
    empty.hidden = !nothing;
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
    const kept = this.#budget ? ` These are the figures of ${localTime(new Date(this.#budget.as_of))}.` : '';
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

/** Tokens a day that would just reach the hard cap. @param {Budget} b */
function evenPace(b) {
  if (!b.hard_cap_tokens || !b.enabled) return null;
  return b.hard_cap_tokens / Math.max(1, (Date.parse(b.resets_at) - Date.parse(b.period_start)) / 86_400_000);
}

customElements.define('ai-budget-card', BudgetCard);
