import {DEFAULT, Problem} from './api.js';
import {BackTest} from './back-test.js';
import {personOf} from './changes.js';
import {h, need, say} from './dom.js';
import {sentence} from './format.js';
import {ofLimit} from './limit-back-test.js';
import {LimitForm} from './limit-form.js';
import {LimitRow} from './limit-row.js';
import {definition} from './limit-words.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {import('./api.js').Limit} Limit
 */

const MOST = 50;

/**
 * The limits of a budget: the list, and a form for one of them. Each is stored by itself,
 * at once, beside the caps that are stored and not those that somebody is typing.
 */
export class Limits {
  /** @type {Budget | null} */
  #budget = null;
  /** @type {Map<string, LimitRow>} */
  #rows = new Map();
  /** The limit in the form, as it was stored when the form was opened; null: a new one. @type {Limit | null} */
  #edited = null;
  /** What the person knows to be stored of it, as JSON. */
  #known = '';
  #saving = false;

  /**
   * @param {HTMLElement} root
   * @param {() => import('./editor.js').Target} target
   * @param {import('./editor.js').On} on
   */
  constructor(root, target, on) {
    this.target = target;
    this.on = on;
    this.title = need(root, 'h3');
    this.add = /** @type {HTMLButtonElement} */ (need(root, '.add'));
    this.about = need(root, '.about');
    this.list = need(root, '.limit-list');
    this.outcome = need(root, '.outcome');
    this.form = new LimitForm({changed: () => this.#try(), submit: () => this.#submit(), cancel: () => this.#close()});
    this.form.root.hidden = true;
    this.backTest = new BackTest(need(this.form.root, '.back-test-text'), need(this.form.root, '.back-test'));
    root.insertBefore(this.form.root, this.outcome);
    this.add.addEventListener('click', () => this.#open(null));
  }

  /** Whether leaving would lose something. */
  get unsaved() {
    return !this.form.root.hidden && this.form.touched;
  }

  /** Forgets everything: another port is shown. */
  reset() {
    this.#budget = null;
    this.#rows.clear();
    this.list.replaceChildren();
    this.form.root.hidden = true;
    this.backTest.stop();
    this.#say('');
  }

  /** Takes what the server says now. @param {Budget} b */
  receive(b) {
    this.#budget = b;
    const rows = b.limits.map((l) => {
      const row = this.#rows.get(l.name) ?? new LimitRow(l.name, {edit: () => this.#open(l.name), remove: () => this.#remove(l.name)});
      row.show(l, b.enabled);
      return row;
    });
    this.#rows = new Map(b.limits.map((l, i) => [l.name, rows[i]]));
    const now = rows.map((r) => r.root);
    // Only when they differ: what is moved loses the focus.
    if (now.length !== this.list.children.length || now.some((e, i) => e !== this.list.children[i])) this.list.replaceChildren(...now);
    const off = b.limits.length > 0 && !b.enabled ? ' They do not bind: the caps are not enforced.' : '';
    say(this.about, b.limits.length === 0 ? 'Caps for some of the calls, beside the budget: by feature, provider, model, user or run, in a window of their own. There are none.' : `A call must fit under the budget and under every limit that it matches.${off}`);
    this.#arrange();
    if (this.form.root.hidden) return;
    if (this.#edited) this.#compare(b, this.#edited.name);
    const {api, port} = this.target();
    this.backTest.again(ofLimit(api, port, this.form.read([]).limit));
  }

  /** Tells who edits a limit that somebody else changed it. @param {Budget} b @param {string} name */
  #compare(b, name) {
    const stored = b.limits.find((l) => l.name === name);
    const now = JSON.stringify(stored && definition(stored));
    if (now === this.#known || this.#saving) return;
    this.#known = now;
    this.#say(`${personOf(b.updated_by)} ${stored ? 'changed' : 'removed'} ${name} in the meantime. Save to store yours all the same.`, 'failed');
  }

  #arrange() {
    this.add.hidden = !this.form.root.hidden || (this.#budget?.limits.length ?? 0) >= MOST;
  }

  /** @param {string | null} name null: a new limit */
  #open(name) {
    const stored = this.#budget?.limits.find((l) => l.name === name);
    this.#edited = stored ? definition(stored) : null;
    this.#known = JSON.stringify(this.#edited);
    this.form.root.hidden = false;
    this.form.seed(this.#edited);
    this.#say('');
    this.#arrange();
    need(this.form.root, 'input').focus();
  }

  /** Ends the form; the focus goes to where it was opened, or to what was stored. @param {string} [name] */
  #close(name = this.#edited?.name) {
    this.form.root.hidden = true;
    this.backTest.stop();
    this.#edited = null;
    this.#say('');
    this.#arrange();
    (this.#rows.get(name ?? '')?.edit ?? (this.add.hidden ? this.title : this.add)).focus();
  }

  /** Says what the limit in the form would have done. */
  #try() {
    const {api, port} = this.target();
    if (this.form.root.hidden) return;
    this.backTest.frame.hidden = port === DEFAULT; // nobody has called by it
    if (port !== DEFAULT) this.backTest.ask(ofLimit(api, port, this.form.read([]).limit));
  }

  async #submit() {
    const stored = this.#budget?.limits.map(definition) ?? [];
    const edited = this.#edited?.name;
    this.form.tidy();
    const {limit, problems} = this.form.read(stored.map((l) => l.name).filter((n) => n !== edited));
    if (!limit) {
      this.form.complain(problems);
      return this.#say('Not saved', 'failed');
    }
    const at = stored.findIndex((l) => l.name === edited);
    if (await this.#store(at < 0 ? [...stored, limit] : stored.with(at, limit))) {
      this.#close(limit.name);
      this.#say(`Saved ${limit.name}`, 'saved');
    }
  }

  /** @param {string} name */
  async #remove(name) {
    const stored = this.#budget?.limits.map(definition) ?? [];
    if (!await this.#store(stored.filter((l) => l.name !== name))) return;
    this.#say(`Removed ${name}`, 'saved');
    (this.add.hidden ? this.title : this.add).focus();
  }

  /** @param {Limit[]} limits @returns {Promise<boolean>} whether they are stored, and shown */
  async #store(limits) {
    const b = this.#budget;
    if (this.#saving || !b) return false;
    const {api, port} = this.target();
    this.#saving = true;
    this.on.saving();
    this.#say('Saving…', 'busy');
    /** @type {Budget | null} */
    let stored = null;
    try {
      // Whoever sets the first limit of a port wants it to count.
      const enabled = b.enabled || b.version === 0 || b.default === true;
      stored = await api.saveBudget(port, {enabled, soft_cap_tokens: b.soft_cap_tokens, hard_cap_tokens: b.hard_cap_tokens, period: b.period, limits}, b.version);
    } catch (e) {
      if (this.target().port === port) this.#failed(e);
    }
    if (this.target().port === port) this.on.saved(stored);
    this.#saving = false;
    return stored !== null && this.target().port === port;
  }

  /** @param {unknown} e */
  #failed(e) {
    if (!(e instanceof Problem)) return this.#say('The server did not answer. Your change may or may not be stored: look at the list before you try again.', 'failed');
    if (e.status === 412) return this.#say('Not saved: somebody else changed this budget in the meantime. The list shows what is stored now; try again.', 'failed');
    if (e.status === 401) return this.#say(['Not saved: your session has ended. ', h('a', {href: this.target().login, target: '_blank', rel: 'noopener', text: 'Sign in'}), ', then try again.'], 'failed');
    const homeless = this.form.root.hidden ? e.errors : this.form.complain(e.errors);
    const atInputs = e.errors.length > homeless.length;
    this.#say(atInputs ? 'Not saved' : `Not saved. ${sentence(e.message)}`, 'failed');
  }

  /** @param {string | (string | Node)[]} text @param {'' | 'busy' | 'saved' | 'failed'} [kind] */
  #say(text, kind = '') {
    if (typeof text === 'string') say(this.outcome, text);
    else this.outcome.replaceChildren(...text);
    this.outcome.dataset.kind = kind;
  }
}
