import {DEFAULT, Problem} from './api.js';
import {BackTest, ofCaps} from './back-test.js';
import {Conflict} from './conflict.js';
import {h, need, say} from './dom.js';
import {sentence, tokens} from './format.js';
import {BudgetForm, same} from './form.js';
import {definition} from './limit-words.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {{port: string, api: import('./api.js').Api, login: string}} Target
 * @typedef {{saving: () => void, saved: (b: Budget | null) => void}} On
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
  #saving = false;
  #forget = 0;
  #used = 0; // in the current period, as last heard
  #warned = false; // of what the fields say now

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
    this.backTest = new BackTest(need(form, '.back-test-text'), need(form, '.back-test'));
    this.conflict = new Conflict(need(form, '.conflict'), {useTheirs: () => this.#useTheirs(), overwrite: () => this.#overwrite()});
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
    this.#base = this.#theirs = null;
    this.backTest.stop();
    this.conflict.close();
    this.#say('');
  }

  /** Takes what the server says now. @param {Budget} b */
  receive(b) {
    this.#used = b.used_tokens;
    if (this.#saving) return;
    const known = this.#theirs ?? this.#base;
    if (known && known.version === b.version) {
      const {api, port} = this.target();
      return this.backTest.again(ofCaps(api, port, this.form.read().settings));
    }
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
    this.#warned = false;
    if (!this.#saving) this.#say('');
    this.#changed();
  }

  /** Makes everything around the fields fit what they say. */
  #changed() {
    const {settings} = this.form.read();
    const {api, port} = this.target();
    this.backTest.frame.hidden = port === DEFAULT; // nobody has called by it
    if (port !== DEFAULT) this.backTest.ask(ofCaps(api, port, settings));
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

  async #save() {
    if (this.#saving || this.conflict.open || !this.#base || !this.form.dirty) return;
    this.form.tidy();
    const {settings, problems} = this.form.read();
    if (!settings) {
      this.form.complain(problems);
      this.#say('Not saved', 'failed');
      return this.form.focusProblem();
    }
    const base = this.#base;
    if (this.#stopsAll(base, settings) && !this.#warned) {
      this.#warned = true;
      return this.#say(`Not saved yet: ${tokens(this.#used)} tokens are used already, so with this hard cap every call is refused from now on. Save again if you mean it.`, 'failed');
    }
    await this.#store(settings, base.version);
    if (this.#base !== base && same(settings, this.#base) && base.version > 0 && !base.default) this.#offerUndo(base);
  }

  /** Whether all calls would be refused now that are not yet. @param {Budget} base @param {import('./api.js').Settings} s */
  #stopsAll(base, s) {
    /** @param {import('./api.js').Settings} b */
    const stops = (b) => b.enabled && b.hard_cap_tokens !== null && this.#used >= b.hard_cap_tokens;
    return this.target().port !== DEFAULT && s.period === base.period && stops(s) && !stops(base);
  }

  /** @param {Budget} before */
  #offerUndo(before) {
    const {port} = this.target();
    const {enabled, soft_cap_tokens, hard_cap_tokens, period} = before;
    const undo = h('button', {type: 'button', class: 'quiet', text: 'Undo', onclick: () => {
      if (this.#base && !this.#saving && this.target().port === port) this.#store({enabled, soft_cap_tokens, hard_cap_tokens, period}, this.#base.version);
    }});
    this.#say(['Saved ', undo], 'saved');
    clearTimeout(this.#forget);
    this.#forget = setTimeout(() => this.#say(''), UNDO_MS);
  }

  /** @param {import('./api.js').Settings} settings @param {number} ifVersion */
  #store(settings, ifVersion) {
    // What is not changed stays as it binds now: limits of the default budget become the port's own.
    const limits = this.#base?.default && this.#base.limits.length > 0 ? {limits: this.#base.limits.map(definition)} : {};
    return this.#send(settings, (api, port) => api.saveBudget(port, {...settings, ...limits}, ifVersion));
  }

  /** Gives the port back to the default budget. */
  #giveBack() {
    const base = this.#base;
    if (this.#saving || !base || this.form.dirty) return;
    return this.#send(base, (api, port) => api.useDefault(port, base.version));
  }

  /**
   * @param {import('./api.js').Settings} settings
   * @param {(api: import('./api.js').Api, port: string) => Promise<Budget>} send
   */
  async #send(settings, send) {
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
      if (this.target().port === port) await this.#failed(e, settings);
    }
    this.#saving = false;
    if (this.target().port !== port) return;
    if (stored) {
      this.#fill(stored);
      this.#say('Saved', 'saved');
    } else {
      this.#changed();
    }
    this.on.saved(stored);
  }

  /** @param {unknown} e @param {import('./api.js').Settings} mine */
  async #failed(e, mine) {
    if (!(e instanceof Problem)) {
      return this.#say('The server did not answer. Your change may or may not be stored: save again to make sure.', 'failed');
    }
    if (e.status === 412) return this.#lost(mine);
    if (e.status === 401) {
      return this.#say(['Not saved: your session has ended. ', h('a', {href: this.target().login, target: '_blank', rel: 'noopener', text: 'Sign in'}), ', then save again. What you typed stays here.'], 'failed');
    }
    const homeless = this.form.refused(e.errors);
    const atInputs = e.errors.length > homeless.length;
    this.#say(atInputs ? 'Not saved' : `Not saved. ${sentence(e.message)}`, 'failed');
    if (atInputs) this.form.focusProblem();
  }

  /** The race was lost: find out to whom. @param {import('./api.js').Settings} mine */
  async #lost(mine) {
    const {api, port} = this.target();
    let theirs;
    try {
      theirs = await api.budget(port);
    } catch {
      return this.#say('Not saved: somebody else changed this budget in the meantime.', 'failed');
    }
    if (same(mine, theirs)) { // our own save, whose answer was lost
      this.#fill(theirs);
      return this.#say('Saved', 'saved');
    }
    this.#say('');
    this.#theirs = theirs;
    this.conflict.show(theirs, mine, {focus: true});
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
    this.save.hidden = false;
    this.save.focus();
    this.#store(settings, theirs.version);
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
