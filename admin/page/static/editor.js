import {DEFAULT, Problem} from './api.js';
import {BackTest, ofCaps} from './back-test.js';
import {Confirm} from './confirm.js';
import {Conflict} from './conflict.js';
import {need, say} from './dom.js';
import {effectOf} from './effect.js';
import {BudgetForm, same} from './form.js';
import {definition} from './limit-words.js';
import {NowLine, undoButton} from './now-line.js';
import {failure} from './problems.js';
import {asStored, putBack, wholeOf} from './put-back.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {{port: string, api: import('./api.js').Api, login: string}} Target
 * @typedef {{saving: () => void, saved: (b: Budget | null) => void}} On
 * @typedef {(api: import('./api.js').Api, port: string) => Promise<Budget>} Send
 */

const SAVED_MS = 4000;
const UNDO_MS = 10_000;

/**
 * The part of the card that changes the budget. It fills its fields from what the
 * server says, but never those somebody is typing in: when the budget changes
 * meanwhile, that person decides.
 */
export class Editor {
  /** What the fields were filled from; a save is refused unless it is still stored. @type {Budget | null} */
  #base = null;
  /** What somebody else stored in the meantime. @type {Budget | null} */
  #theirs = null;
  /** What the server said last, with what is used now. @type {Budget | null} */
  #latest = null;
  #saving = false;
  #forget = 0;

  /**
   * @param {HTMLFormElement} form
   * @param {() => Target} target
   * @param {On} on
   */
  constructor(form, target, on) {
    this.target = target;
    this.on = on;
    this.form = new BudgetForm(form, {changed: () => this.#typed(), submit: () => this.#save()});
    this.save = need(form, '.save');
    this.discard = need(form, '.discard');
    this.byDefault = need(form, '.by-default');
    this.useDefault = need(form, '.use-default');
    this.useDefault.addEventListener('click', () => this.#giveBack());
    this.outcome = need(form, '.outcome');
    this.now = new NowLine(need(form, '.effect'));
    this.backTest = new BackTest(need(form, '.back-test-text'), need(form, '.back-test'));
    this.conflict = new Conflict(need(form, '.conflict'), {useTheirs: () => this.#useTheirs(), overwrite: () => this.#overwrite()});
    this.confirm = new Confirm(need(form, '.confirm'));
    this.discard.addEventListener('click', () => {
      if (this.#base) this.#fill(this.#theirs ?? this.#base);
      this.#say('');
      this.form.inputs.soft.focus();
    });
  }

  /** Whether leaving would lose something. */
  get unsaved() {
    return this.form.dirty;
  }

  /** Forgets everything: another port is shown. */
  reset() {
    this.#base = this.#theirs = this.#latest = null;
    this.backTest.stop();
    this.now.hide();
    this.conflict.close();
    this.confirm.close();
    this.#say('');
  }

  /** Takes what the server says now. @param {Budget} b */
  receive(b) {
    this.#latest = b;
    if (this.#saving) return;
    const known = this.#theirs ?? this.#base;
    if (known && known.version === b.version) {
      this.#tellNow();
      const {api, port} = this.target();
      return this.backTest.again(ofCaps(api, port, this.form.read().settings));
    }
    this.confirm.close(); // it was asked about another budget
    if (!this.#base || !this.form.touched) return this.#fill(b);
    const {settings} = this.form.read();
    if (settings && same(settings, b)) return this.#fill(b);
    if (!this.#theirs && this.#rebase(this.#base, b)) return;
    this.#theirs = b;
    this.conflict.show(b, settings, {focus: false});
    this.#changed();
  }

  /**
   * Only limits were changed since: what is typed goes on from there. The first limit of a
   * port makes its budget count.
   * @param {Budget} base @param {Budget} b
   */
  #rebase(base, b) {
    const first = base.version === 0 && b.enabled;
    if (!same(first ? {...base, enabled: true} : base, b)) return false;
    if (first) this.form.enabled.checked = true;
    this.#base = b;
    return true;
  }

  /** @param {Budget} b */
  #fill(b) {
    this.#base = b;
    this.#theirs = null;
    this.form.seed(b);
    this.conflict.close();
    this.#changed();
  }

  #typed() {
    this.confirm.close(); // it was asked about other caps
    if (!this.#saving) this.#say('');
    this.#changed();
  }

  /** Makes everything around the fields fit what they say. */
  #changed() {
    const {settings} = this.form.read();
    const {api, port} = this.target();
    this.backTest.frame.hidden = port === DEFAULT; // nobody has called by it
    if (port !== DEFAULT) this.backTest.ask(ofCaps(api, port, settings));
    this.#tellNow();
    const dirty = this.form.dirty;
    this.discard.hidden = !dirty || this.conflict.open;
    const own = this.#base !== null && port !== DEFAULT && !this.#base.default && this.#base.version > 0;
    this.useDefault.hidden = !own || dirty || this.conflict.open;
    this.byDefault.hidden = !this.#base?.default;
    say(this.byDefault, this.#base?.default ? 'This port has no budget of its own: this is the default budget. Save to give it one.' : '');
    this.save.hidden = this.conflict.open;
    this.save.setAttribute('aria-disabled', String(!dirty || this.#saving));
    if (this.conflict.open && this.#theirs) this.conflict.show(this.#theirs, settings, {focus: false});
  }

  /** Says what to save the fields as they are would do at once. */
  #tellNow() {
    const [b, {settings}, {api, port}] = [this.#latest, this.form.read(), this.target()];
    if (!b || !settings || !this.form.dirty) return this.now.hide();
    this.now.show(JSON.stringify([port, settings, b.version, b.used_tokens, b.held_tokens, b.hard_cap_reached]), () => effectOf(api, port, b, settings));
  }

  async #save() {
    if (this.#saving || this.conflict.open || !this.#base || !this.form.dirty) return;
    this.form.tidy();
    const {settings, problems} = this.form.read();
    if (!settings) {
      this.form.complain(problems);
      this.#say('Not saved', 'failed');
      return this.form.focusProblem();
    }
    await this.#saveOver(this.#base, settings);
  }

  /** @param {Budget} base @param {import('./api.js').Settings} settings */
  async #saveOver(base, settings) {
    this.#say('Saving…', 'busy'); // what it does may take a moment to find out
    if (!await this.#meant(settings, {title: 'Save this?', yes: 'Yes, save', back: this.save})) return this.#say('');
    // What is not changed stays as it binds now: limits of the default budget become the port's own.
    const limits = base.default && base.limits.length > 0 ? {limits: base.limits.map(definition)} : {};
    if (await this.#send((api, port) => api.saveBudget(port, {...settings, ...limits}, base.version), settings)) this.#offerUndo(base);
  }

  /** @param {import('./effect.js').Settings | null} settings null: the default budget @param {import('./confirm.js').Question} question */
  #meant(settings, question) {
    const {api, port} = this.target(), b = this.#latest;
    return this.confirm.meant(async () => b ? effectOf(api, port, b, settings) : {text: '', drastic: false}, question);
  }

  /** Gives the port back to the default budget. */
  async #giveBack() {
    const base = this.#base;
    if (this.#saving || !base || this.form.dirty) return;
    if (!await this.#meant(null, {title: 'Use the default budget?', yes: 'Yes, use it', back: this.useDefault, always: true})) return;
    if (await this.#send((api, port) => api.useDefault(port, base.version))) this.#offerUndo(base);
    this.form.inputs.soft.focus();
  }

  /** @param {Budget} before what was stored until now */
  #offerUndo(before) {
    const {port, api} = this.target();
    this.#say(['Saved ', undoButton('this save', async () => {
      const b = this.#base;
      if (!b || this.#saving || this.target().port !== port) return;
      const whole = wholeOf(port, asStored(before), api.now());
      if (!await this.#meant(whole, {title: 'Undo this save?', yes: 'Yes, undo', back: this.save})) return;
      if (await this.#send(() => putBack(api, port, whole, b.version))) this.#say('Undone', 'saved');
      this.form.inputs.soft.focus();
    })], 'saved');
    clearTimeout(this.#forget);
    this.#forget = setTimeout(() => this.#say(''), UNDO_MS);
  }

  /**
   * Stores something, and says what came of it.
   * @param {Send} send @param {import('./api.js').Settings} [mine] what the fields say, where that is stored
   * @returns {Promise<boolean>} whether it is stored, and shown
   */
  async #send(send, mine) {
    const {api, port} = this.target();
    this.#saving = true;
    this.on.saving();
    this.#changed();
    this.#say('Saving…', 'busy');
    /** @type {Budget | null} */
    let stored = null;
    try {
      stored = await send(api, port);
    } catch (e) {
      if (this.target().port === port) stored = await this.#failed(e, mine);
    }
    this.#saving = false;
    if (this.target().port !== port) return false;
    if (stored) {
      this.#latest = stored;
      this.#fill(stored);
      this.#say('Saved', 'saved');
    } else {
      this.#changed();
    }
    this.on.saved(stored);
    return stored !== null;
  }

  /** @param {unknown} e @param {import('./api.js').Settings} [mine] @returns {Promise<Budget | null>} what is stored, if it is mine after all */
  async #failed(e, mine) {
    if (mine && e instanceof Problem && e.status === 412) return this.#lost(mine);
    const homeless = e instanceof Problem ? this.form.refused(e.errors) : [];
    const atInputs = e instanceof Problem && e.errors.length > homeless.length;
    this.#say(atInputs ? 'Not saved' : failure(e, this.target().login, 'save again'), 'failed');
    if (atInputs) this.form.focusProblem();
    return null;
  }

  /** The race was lost: find out to whom. @param {import('./api.js').Settings} mine @returns {Promise<Budget | null>} */
  async #lost(mine) {
    const {api, port} = this.target();
    let theirs;
    try {
      theirs = await api.budget(port);
    } catch {
      this.#say('Not saved: somebody else changed this budget in the meantime.', 'failed');
      return null;
    }
    if (same(mine, theirs)) return theirs; // our own save, whose answer was lost
    this.#say('');
    this.#theirs = theirs;
    this.conflict.show(theirs, mine, {focus: true});
    return null;
  }

  #useTheirs() {
    if (!this.#theirs) return;
    this.#fill(this.#theirs);
    this.#say('Showing what is stored');
    this.form.inputs.soft.focus();
  }

  #overwrite() {
    const theirs = this.#theirs;
    const {settings, problems} = this.form.read();
    if (!theirs) return;
    if (!settings) {
      this.form.complain(problems);
      return this.form.focusProblem();
    }
    this.#base = theirs;
    this.#theirs = null;
    this.conflict.close();
    this.#changed();
    this.save.focus();
    this.#saveOver(theirs, settings);
  }

  /** @param {string | (string | Node)[]} text @param {'' | 'busy' | 'saved' | 'failed'} [kind] */
  #say(text, kind = '') {
    clearTimeout(this.#forget);
    if (typeof text === 'string') say(this.outcome, text);
    else this.outcome.replaceChildren(...text);
    this.outcome.dataset.kind = kind;
    say(this.save, kind === 'busy' ? 'Saving…' : 'Save');
    if (kind === 'saved') this.#forget = setTimeout(() => this.#say(''), SAVED_MS);
  }
}
