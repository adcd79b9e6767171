import {changesTable} from './changes.js';
import {h} from './dom.js';

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {string} yes what the button says
 * @property {HTMLElement} back where the focus goes after a no
 * @property {import('./changes.js').Difference[]} [rows] what changes
 * @property {boolean} [always] one is asked whatever it does
 */

/**
 * Asks, within the card, whether a change is meant. The question goes away unanswered, which
 * is no, when what it is about changes.
 */
export class Confirm {
  /** @type {((yes: boolean) => void) | null} */
  #answer = null;
  #round = 0;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    root.hidden = true;
  }

  /**
   * Whoever makes a drastic change is asked, once.
   * @param {() => Promise<import('./effect.js').Effect>} find what it does
   * @param {Question} question
   */
  async meant(find, question) {
    this.close();
    const round = this.#round;
    const effect = await find().catch(() => null);
    if (round !== this.#round) return false;
    if (!effect?.drastic && !question.always) return true; // without an answer, the answer to the save says what is wrong
    return this.#ask(effect?.text ?? 'What it does now cannot be told.', question);
  }

  /** @param {string} text @param {Question} question @returns {Promise<boolean>} */
  #ask(text, {title, yes, back, rows = []}) {
    const no = () => {
      this.close();
      back.focus();
    };
    const heading = h('h4', {tabindex: -1, text: title});
    this.root.setAttribute('aria-label', title);
    this.root.replaceChildren(heading, h('p', {text}), ...(rows.length > 0 ? [changesTable(rows, 'Now', 'Then')] : []),
      h('p', {class: 'choices'},
        h('button', {type: 'button', class: 'quiet', text: 'No, leave it', onclick: no}),
        h('button', {type: 'button', class: 'primary', text: yes, onclick: () => this.#end(true)})));
    this.root.onkeydown = (e) => { if (e.key === 'Escape') no(); };
    this.root.hidden = false;
    heading.focus();
    return new Promise((answer) => { this.#answer = answer; });
  }

  /** Takes the question back. */
  close() {
    this.#round++;
    this.#end(false);
  }

  /** @param {boolean} yes */
  #end(yes) {
    const answer = this.#answer;
    this.#answer = null;
    this.root.hidden = true;
    this.root.replaceChildren();
    answer?.(yes);
  }
}
