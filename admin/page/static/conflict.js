import {changesTable, differences, personOf} from './changes.js';
import {h} from './dom.js';
import {utcDateTime} from './format.js';

/**
 * Somebody else stored a budget since this form was filled: both are shown, and the
 * person chooses.
 */
export class Conflict {
  /** @param {HTMLElement} root @param {{useTheirs: () => void, overwrite: () => void}} choose */
  constructor(root, choose) {
    this.root = root;
    this.choose = choose;
  }

  get open() {
    return !this.root.hidden;
  }

  close() {
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  /**
   * @param {import('./api.js').Budget} theirs
   * @param {import('./api.js').Settings | null} mine null: what was typed is no budget yet
   * @param {{focus: boolean}} options whether the person waits for this right now
   */
  show(theirs, mine, {focus}) {
    const title = h('h4', {id: 'conflict-title', tabindex: -1, text: `${personOf(theirs.updated_by)} changed this budget`});
    const when = theirs.updated_at ? `, on ${utcDateTime(new Date(theirs.updated_at))}` : '';
    const rows = mine ? differences(theirs, {...theirs, ...mine}) : [];
    this.root.replaceChildren(...[
      title,
      h('p', {}, `That was after you began to edit${when}. Nothing of yours is stored yet.`),
      rows.length > 0 ? changesTable(rows, 'Stored now', 'Yours') : null,
      h('p', {class: 'choices'},
        h('button', {type: 'button', class: 'primary', text: 'Use what is stored', onclick: this.choose.useTheirs}),
        h('button', {type: 'button', class: 'quiet', text: 'Overwrite with mine', onclick: this.choose.overwrite})),
    ].filter((e) => e !== null));
    this.root.hidden = false;
    if (focus) title.focus();
  }
}
