import {DEFAULT, Problem} from './api.js';
import {BackTest} from './back-test.js';
import {personOf} from './changes.js';
import {Confirm} from './confirm.js';
import {need, say} from './dom.js';
import {effectOf} from './effect.js';
import {ofLimit} from './limit-back-test.js';
import {effectOfLimit, effectOfRemoval} from './limit-effect.js';
import {LimitForm} from './limit-form.js';
import {LimitRow} from './limit-row.js';
import {definition} from './limit-words.js';
import {NowLine, undoButton} from './now-line.js';
import {failure} from './problems.js';
import {asStored, putBack, wholeOf} from './put-back.js';

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
    this.now = new NowLine(need(this.form.root, '.effect'));
    this.backTest = new BackTest(need(this.form.root, '.back-test-text'), need(this.form.root, '.back-test'));
    this.confirm = new Confirm(need(root, '.confirm'));
    this.confirm.root.before(this.form.root);
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
    this.now.hide();
    this.confirm.close();
    this.#say('');
  }

  /** Takes what the server says now. @param {Budget} b */
  receive(b) {
    if (b.version !== this.#budget?.version) this.confirm.close(); // it was asked about another budget
    this.#budget = b;
    const rows = b.limits.map((l) => {
      const row = this.#rows.get(l.name) ?? new LimitRow(l.name, {edit: () => this.#open(l.name), remove: () => this.#remove(l.name), effect: () => this.#budget ? effectOfRemoval(this.#budget, l.name) : ''});
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
    const {api, port} = this.target(), {limit} = this.form.read([]);
    this.backTest.again(ofLimit(api, port, limit));
    this.#tellNow(limit);
  }

  /** Says what to save the limit in the form would do at once. @param {Limit | null} limit */
  #tellNow(limit) {
    const {api, port} = this.target(), b = this.#budget, edited = this.#edited?.name;
    if (!limit || !b || !this.form.touched || port === DEFAULT) return this.now.hide();
    const counted = b.limits.find((l) => l.name === edited);
    this.now.show(JSON.stringify([port, limit, b.version, counted?.used, counted?.held, counted?.top]), () => effectOfLimit(api, port, b, limit, edited));
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
    this.now.hide();
    this.confirm.close();
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
    this.confirm.close(); // it was asked about another limit
    const {limit} = this.form.read([]);
    if (port !== DEFAULT) this.backTest.ask(ofLimit(api, port, limit));
    this.#tellNow(limit);
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
    const before = this.#budget, {api, port} = this.target();
    if (!before) return;
    this.#say('');
    const meant = await this.confirm.meant(() => effectOfLimit(api, port, before, limit, edited), {title: 'Save this limit?', yes: 'Yes, save', back: need(this.form.root, '.primary')});
    if (!meant || this.form.root.hidden) return;
    const at = stored.findIndex((l) => l.name === edited);
    if (await this.#store(at < 0 ? [...stored, limit] : stored.with(at, limit))) {
      this.#close(limit.name);
      this.#offerUndo('Saved', 'save', limit.name, before);
    }
  }

  /** @param {string} name */
  async #remove(name) {
    const before = this.#budget;
    const stored = before?.limits.map(definition) ?? [];
    if (!before || !await this.#store(stored.filter((l) => l.name !== name))) return;
    this.#offerUndo('Removed', 'removal', name, before);
    (this.add.hidden ? this.title : this.add).focus();
  }

  /** @param {string} did @param {string} deed @param {string} name @param {Budget} before what was stored until now */
  #offerUndo(did, deed, name, before) {
    const {api, port} = this.target(), after = this.#budget;
    this.#say([`${did} ${name} `, undoButton(`the ${deed} of ${name}`, async () => {
      if (after?.version !== this.#budget?.version || this.target().port !== port) return this.#say('Not undone: this budget was changed since. The history below has every change.', 'failed');
      const whole = wholeOf(port, asStored(before), api.now());
      if (!await this.confirm.meant(() => effectOf(api, port, this.#budget ?? before, whole), {title: 'Undo this change?', yes: 'Yes, undo', back: this.title})) return;
      if (await this.#send((b) => putBack(api, port, whole, b.version))) this.#say('Undone', 'saved');
      this.title.focus();
    })], 'saved');
  }

  /** @param {Limit[]} limits @returns {Promise<boolean>} whether they are stored, and shown */
  #store(limits) {
    const {api, port} = this.target();
    // Whoever sets the first limit of a port wants it to count.
    return this.#send((b) => api.saveBudget(port, {enabled: b.enabled || b.version === 0 || b.default === true, soft_cap_tokens: b.soft_cap_tokens, hard_cap_tokens: b.hard_cap_tokens, period: b.period, limits}, b.version));
  }

  /** @param {(b: Budget) => Promise<Budget>} send @returns {Promise<boolean>} whether it is stored, and shown */
  async #send(send) {
    const b = this.#budget, {port} = this.target();
    if (this.#saving || !b) return false;
    this.#saving = true;
    this.on.saving();
    this.#say('Saving…', 'busy');
    /** @type {Budget | null} */
    let stored = null;
    try {
      stored = await send(b);
    } catch (e) {
      if (this.target().port === port) this.#failed(e);
    }
    if (this.target().port === port) this.on.saved(stored);
    this.#saving = false;
    return stored !== null && this.target().port === port;
  }

  /** @param {unknown} e */
  #failed(e) {
    const errors = e instanceof Problem ? e.errors : [];
    const homeless = this.form.root.hidden ? errors : this.form.complain(errors);
    this.#say(errors.length > homeless.length ? 'Not saved' : failure(e, this.target().login, 'try again'), 'failed');
  }

  /** @param {string | (string | Node)[]} text @param {'' | 'busy' | 'saved' | 'failed'} [kind] */
  #say(text, kind = '') {
    if (typeof text === 'string') say(this.outcome, text);
    else this.outcome.replaceChildren(...text);
    this.outcome.dataset.kind = kind;
  }
}
