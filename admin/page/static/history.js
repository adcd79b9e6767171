import {DEFAULT} from './api.js';
import {differences, limitDifferences, personOf} from './changes.js';
import {Confirm} from './confirm.js';
import {h, need, say} from './dom.js';
import {effectOf} from './effect.js';
import {utcDateTime} from './format.js';
import {failure} from './problems.js';
import {putBack, wholeOf} from './put-back.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {import('./api.js').Change} Change
 * @typedef {import('./api.js').BudgetChange} BudgetChange
 * @typedef {import('./api.js').NameChange} NameChange
 */

const PAGE = 5;

/** Who changed a budget, or the port's name, and what, newest first, with what undoes it. */
export class ChangeHistory {
  #of = '';
  /** @type {Budget | null} */
  #budget = null;
  /** @type {Change[]} */
  #changes = [];
  #saving = false;

  /** @param {HTMLElement} root @param {() => import('./editor.js').Target} target @param {import('./editor.js').On & {named: (name: string) => void}} on */
  constructor(root, target, on) {
    this.root = root;
    this.target = target;
    this.on = on;
    this.title = need(root, 'h3');
    this.list = need(root, '.changes');
    this.outcome = need(root, '.outcome');
    this.confirm = new Confirm(h('section', {class: 'confirm', role: 'group'}));
    this.older = need(root, '.older');
    this.older.addEventListener('click', () => this.#load(this.#changes.at(-1)?.id ?? 0));
  }

  /** Forgets everything: another port is shown. */
  reset() {
    this.#of = '';
    this.#budget = null;
    this.#changes = [];
    this.root.hidden = true;
    this.confirm.close();
    this.#say('');
  }

  /** Takes what the server says now, and reads the log when the budget has another version. @param {Budget} b */
  receive(b) {
    const first = this.#budget === null, of = `${this.target().port} ${b.version}`;
    this.#budget = b;
    if (of === this.#of) return;
    this.#of = of;
    this.confirm.close(); // it was asked about another budget
    // What failed because somebody else changed the budget is still to be read when that change is seen.
    if (!first && !this.#saving && this.outcome.dataset.kind !== 'failed') this.#say('');
    this.#load(0);
  }

  /** The port has another name: the log has it. */
  renamed() {
    if (this.#of !== '' && !this.#saving) this.#load(0);
  }

  /** @param {number | string} before */
  async #load(before) {
    const {port, api} = this.target(), of = this.#of;
    let got;
    try {
      got = await api.audit(port, before, PAGE);
    } catch { // the card says what is wrong; the next answer tries again
      if (of === this.#of) this.#of = '';
      return;
    }
    if (of !== this.#of) return;
    this.#changes = before ? [...this.#changes, ...got.changes] : got.changes;
    this.older.hidden = !got.next;
    this.#draw(port);
  }

  /** @param {string} port */
  #draw(port) {
    this.root.hidden = false;
    if (this.#changes.length === 0) {
      return this.list.replaceChildren(h('p', {class: 'none', text: port === DEFAULT ? 'Nobody has set a default budget yet.' : 'Nobody has set a budget for this port yet.'}));
    }
    const newest = this.#changes.find(ofBudget), newestName = this.#changes.find(ofName);
    this.list.replaceChildren(h('ol', {}, ...this.#changes.map((c) => h('li', {},
      h('p', {class: 'deed'}, ...deed(c)),
      h('p', {class: 'doer'}, h('b', {text: personOf(c.changed_by), title: c.changed_by || null}), ' ', h('time', {datetime: c.changed_at, text: utcDateTime(new Date(c.changed_at))})),
      this.#budget?.may_change ? this.#undoOf(c, newest, newestName) : null))));
  }

  /** @param {Change} c @param {BudgetChange | undefined} newest @param {NameChange | undefined} newestName */
  #undoOf(c, newest, newestName) {
    if (ofName(c)) return newestName && newestName.new_value.name !== c.old_value.name ? this.#undoNameButton(c, c === newestName) : null;
    return c.key === 'ai.budget' && newest && differs(newest, c) ? this.#undoButton(c, c === newest) : null;
  }

  /** @param {NameChange} c @param {boolean} newest */
  #undoNameButton(c, newest) {
    const button = h('button', {type: 'button', class: 'quiet undo', onclick: () => this.#undoName(c, newest, button)},
      newest ? 'Undo' : 'Back to before this', h('span', {class: 'hidden', text: ` change of the name to ${c.new_value.name || 'none'}`}));
    return button;
  }

  /** Gives the port the name back that it had before a change. @param {NameChange} c @param {boolean} newest @param {HTMLElement} back */
  async #undoName(c, newest, back) {
    const {api, port} = this.target(), {name} = c.old_value;
    if (this.#saving) return;
    this.#say('');
    back.closest('li')?.append(this.confirm.root);
    const text = name ? `The port is called ${name} from now on.` : 'The port has no name from now on, only its id.';
    if (!await this.confirm.meant(async () => ({text, drastic: false}), {title: newest ? 'Undo this change?' : 'Go back to before this change?', yes: newest ? 'Yes, undo' : 'Yes, go back', back, always: true})) return;
    this.#saving = true;
    this.#say('Saving…', 'busy');
    let done = false;
    try {
      await api.namePort(port, name);
      done = true;
    } catch (e) {
      if (this.target().port === port) this.#say(failure(e, this.target().login, 'try again'), 'failed');
    }
    this.#saving = false;
    if (!done || this.target().port !== port) return;
    this.#say('Undone. That is a change of its own, and can be undone, too.', 'saved');
    this.on.named(name);
    this.#load(0);
    this.title.focus();
  }

  /** @param {BudgetChange} c @param {boolean} newest */
  #undoButton(c, newest) {
    const button = h('button', {type: 'button', class: 'quiet undo', onclick: () => this.#undo(c, newest, button)},
      newest ? 'Undo' : 'Back to before this', h('span', {class: 'hidden', text: ` change, version ${c.version}`}));
    return button;
  }

  /** Stores what was stored before a change. @param {BudgetChange} c @param {boolean} newest @param {HTMLElement} back */
  async #undo(c, newest, back) {
    const {api, port} = this.target(), b = this.#budget;
    if (!b || this.#saving) return;
    const whole = wholeOf(port, c.old_value, api.now());
    this.#say('');
    back.closest('li')?.append(this.confirm.root);
    const meant = await this.confirm.meant(() => effectOf(api, port, b, whole), {
      title: newest ? 'Undo this change?' : 'Go back to before this change?', yes: newest ? 'Yes, undo' : 'Yes, go back', back, always: true,
      rows: whole ? [...differences(b, whole), ...limitDifferences(b, whole)] : [],
    });
    if (!meant) return;
    this.#saving = true;
    this.on.saving();
    this.#say('Saving…', 'busy');
    /** @type {Budget | null} */
    let stored = null;
    try {
      stored = await putBack(api, port, whole, b.version);
      if (this.target().port === port) this.#say('Undone. That is a change of its own, and can be undone, too.', 'saved');
    } catch (e) {
      if (this.target().port === port) this.#say(failure(e, this.target().login, 'try again'), 'failed');
    }
    if (this.target().port === port) {
      this.on.saved(stored);
      this.title.focus();
    }
    this.#saving = false;
  }

  /** @param {string | (string | Node)[]} text @param {string} [kind] */
  #say(text, kind = '') {
    if (typeof text === 'string') say(this.outcome, text);
    else this.outcome.replaceChildren(...text);
    this.outcome.dataset.kind = kind;
  }
}

/** @param {Change} c @returns {c is BudgetChange} */
const ofBudget = (c) => c.key !== 'port.named';

/** @param {Change} c @returns {c is NameChange} */
const ofName = (c) => c.key === 'port.named';

/** Whether what was stored before a change is other than what is stored now. @param {BudgetChange} newest @param {BudgetChange} c */
function differs({new_value: now}, {old_value: was}) {
  const [none, before] = [!now || now.default === true, !was || was.default === true];
  if (none || before) return none !== before;
  return differences(now, was).length > 0 || limitDifferences(now, was).length > 0;
}

/** @param {Change} c */
function deed(c) {
  if (ofName(c)) return [became({name: 'Name', before: c.old_value.name || 'none', after: c.new_value.name || 'none'}, true)];
  if (!c.new_value) return [c.key === 'port.deleted' ? 'The port was deleted, with its usage and its budget' : 'The budget was deleted'];
  if (c.new_value.default) return ['The port was given back to the default budget'];
  const parts = [...differences(c.old_value, c.new_value), ...limitDifferences(c.old_value, c.new_value)].filter((d) => c.old_value || d.after !== 'none');
  if (parts.length === 0) return ['Saved without a change'];
  return parts.map((d) => became(d, c.old_value !== null));
}

/** @param {import('./changes.js').Difference} d @param {boolean} was whether there was something before */
const became = (d, was) => h('span', {}, `${d.name} `, was ? h('s', {text: d.before}) : null, was ? h('span', {class: 'hidden', text: ' became '}) : null, ' ', h('b', {text: d.after}));
