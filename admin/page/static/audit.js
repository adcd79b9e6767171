import {DEFAULT} from './api.js';
import {differences, limitDifferences, personOf} from './changes.js';
import {h, need} from './dom.js';
import {localMoment} from './format.js';

const PAGE = 10;

/** Who changed a port's budget, and what, newest first. */
export class AuditLog {
  #port = '';
  #version = -1;
  /** @type {import('./api.js').Change[]} */
  #changes = [];

  /** @param {HTMLElement} root @param {import('./api.js').Api} api */
  constructor(root, api) {
    this.root = root;
    this.api = api;
    this.list = need(root, '.changes');
    this.older = need(root, '.older');
    this.older.addEventListener('click', () => this.#load(this.#changes.at(-1)?.id ?? 0));
  }

  /**
   * Shows the port's log, and reads it again when the budget has another version.
   * @param {string} port @param {number} version
   */
  follow(port, version) {
    if (port === this.#port && version === this.#version) return;
    if (port !== this.#port) {
      this.#changes = [];
      this.root.hidden = true;
    }
    [this.#port, this.#version] = [port, version];
    this.#load(0);
  }

  /** @param {number} before */
  async #load(before) {
    const port = this.#port;
    let got;
    try {
      got = await this.api.audit(port, before, PAGE);
    } catch { // the card says what is wrong; a later version tries again
      this.#version = -1;
      return;
    }
    if (port !== this.#port) return;
    const known = before === 0 ? [] : this.#changes;
    this.#changes = [...known, ...got.changes];
    this.older.hidden = !got.next;
    this.#draw();
  }

  #draw() {
    this.root.hidden = false;
    if (this.#changes.length === 0) {
      this.list.replaceChildren(h('p', {class: 'none', text: this.#port === DEFAULT ? 'Nobody has set a default budget yet.' : 'Nobody has set a budget for this port yet.'}));
      return;
    }
    this.list.replaceChildren(h('ol', {}, ...this.#changes.map((c) => h('li', {},
      h('p', {class: 'deed'}, ...deed(c)),
      h('p', {class: 'doer'}, h('b', {text: personOf(c.changed_by), title: c.changed_by || null}), ' ', h('time', {datetime: c.changed_at, text: localMoment(new Date(c.changed_at))}))))));
  }
}

/** @param {import('./api.js').Change} c */
function deed(c) {
  if (!c.new_value) return [c.key === 'port.deleted' ? 'The port was deleted, with its usage and its budget' : 'The budget was deleted'];
  if (c.new_value.default) return ['The port was given back to the default budget'];
  const parts = [...differences(c.old_value, c.new_value), ...limitDifferences(c.old_value, c.new_value)].filter((d) => c.old_value || d.after !== 'none');
  if (parts.length === 0) return ['Saved without a change'];
  return parts.map((d) => h('span', {}, `${d.name} `, c.old_value ? h('s', {text: d.before}) : null, c.old_value ? h('span', {class: 'hidden', text: ' became '}) : null, ' ', h('b', {text: d.after})));
}
