import {h, need, say} from './dom.js';

const TYPING_MS = 250;

/**
 * Says what saving would do at once, while somebody types. Only the answer to the latest
 * question is shown.
 */
export class NowLine {
  #asked = '';
  #timer = 0;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.text = need(root, 'p');
  }

  /**
   * @param {string} key all that the answer depends on: the same is not asked twice
   * @param {() => Promise<import('./effect.js').Effect>} find
   */
  show(key, find) {
    if (key === this.#asked) return;
    const first = this.#asked === '';
    this.#asked = key;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      const effect = await find().catch(() => null); // whoever saves is told what is wrong
      if (key !== this.#asked) return;
      if (!effect) this.#asked = '';
      this.root.hidden = !effect?.text;
      this.root.dataset.drastic = String(effect?.drastic ?? false);
      say(this.text, effect?.text ?? '');
    }, first ? 0 : TYPING_MS);
  }

  hide() {
    clearTimeout(this.#timer);
    this.#asked = '';
    this.root.hidden = true;
    say(this.text, '');
  }
}

/** A button that undoes what was just said to be done. @param {string} of @param {() => void} undo */
export const undoButton = (of, undo) => h('button', {type: 'button', class: 'quiet undo', onclick: undo}, 'Undo', h('span', {class: 'hidden', text: ` ${of}`}));
