import {need} from './dom.js';
import {parseTokens, typed} from './format.js';
import {complain, complainedOf, focusProblem} from './problems.js';

/**
 * @typedef {import('./api.js').Settings} Settings
 * @typedef {import('./api.js').FieldProblem} FieldProblem
 */

const CAPS = /** @type {const} */ (['soft', 'hard']);

/** The inputs: caps as text, period, switch. Knows nothing of the server. */
export class BudgetForm {
  /** What the fields said when they were last filled, as typed. */
  #seeded = '';
  /** What the server said about the fields as they are. @type {FieldProblem[]} */
  #refused = [];
  /** @type {(Settings & {version?: number, default?: boolean}) | null} */
  #base = null;

  /** @param {HTMLFormElement} form @param {{changed: () => void, submit: () => void}} on */
  constructor(form, on) {
    this.form = form;
    this.enabled = this.#input('enabled');
    this.inputs = {soft: this.#input('soft'), hard: this.#input('hard')};
    form.addEventListener('input', (e) => {
      this.#enableFirstBudget(e.target);
      this.#refused = [];
      this.#forgive();
      on.changed();
    });
    form.addEventListener('focusout', (e) => {
      if (e.target === this.inputs.soft || e.target === this.inputs.hard) this.tidy();
    });
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      on.submit();
    });
  }

  /** @param {string} name @returns {HTMLInputElement} */
  #input(name) {
    return need(this.form, `input[name=${name}]`);
  }

  /** Fills the fields. @param {Settings & {version?: number, default?: boolean}} s */
  seed(s) {
    this.#base = s;
    this.enabled.checked = s.enabled;
    this.inputs.soft.value = s.soft_cap_tokens === null ? '' : typed(s.soft_cap_tokens);
    this.inputs.hard.value = s.hard_cap_tokens === null ? '' : typed(s.hard_cap_tokens);
    for (const radio of this.#periods()) radio.checked = radio.value === s.period;
    this.#seeded = this.#raw();
    this.#refused = [];
    this.complain([]);
  }

  #periods() {
    return /** @type {NodeListOf<HTMLInputElement>} */ (this.form.querySelectorAll('[name=period]'));
  }

  #raw() {
    return JSON.stringify([this.enabled.checked, this.inputs.soft.value, this.inputs.hard.value, this.#period()]);
  }

  #period() {
    const checked = [...this.#periods()].find((p) => p.checked);
    return /** @type {import('./api.js').Period} */ (checked?.value ?? 'month');
  }

  /** Whether anything was typed that seeding again would overwrite. */
  get touched() {
    return this.#raw() !== this.#seeded;
  }

  /** Whether the fields say something else than they were filled with. */
  get dirty() {
    if (!this.touched || !this.#base) return false;
    const {settings} = this.read();
    return settings === null || !same(settings, this.#base);
  }

  /**
   * What the fields say. Settings are null when a problem makes them no budget.
   * @returns {{settings: Settings | null, problems: FieldProblem[]}}
   */
  read() {
    /** @type {FieldProblem[]} */
    const problems = [];
    /** @type {Record<string, number | null>} */
    const caps = {};
    for (const name of CAPS) {
      const parsed = readCap(this.inputs[name].value);
      if ('problem' in parsed) problems.push({field: `${name}_cap_tokens`, rule: parsed.problem});
      else caps[name] = parsed.value;
    }
    if (problems.length === 0 && caps.soft !== null && caps.hard !== null && caps.soft > caps.hard) {
      problems.push({field: 'soft_cap_tokens', rule: `must be at most the hard cap, ${typed(caps.hard)}`});
    }
    if (problems.length > 0) return {settings: null, problems};
    return {settings: {enabled: this.enabled.checked, soft_cap_tokens: caps.soft, hard_cap_tokens: caps.hard, period: this.#period()}, problems};
  }

  /** Writes 1.5M as 1,500,000, and says what is wrong with what cannot be read. */
  tidy() {
    for (const name of CAPS) {
      const parsed = readCap(this.inputs[name].value);
      if ('value' in parsed) this.inputs[name].value = parsed.value === null ? '' : typed(parsed.value);
    }
    this.complain([...this.read().problems, ...this.#refused]);
  }

  /**
   * Shows what the server found wrong, until something else is typed.
   * @param {FieldProblem[]} problems
   * @returns {FieldProblem[]} those that belong to no input
   */
  refused(problems) {
    this.#refused = problems;
    return this.complain(problems);
  }

  /** @param {FieldProblem[]} problems */
  complain(problems) {
    return complain(this.form, problems);
  }

  /** Takes complaints back as soon as they are no longer true. */
  #forgive() {
    const still = complainedOf(this.form);
    if (still.length === 0) return;
    const {problems} = this.read();
    this.complain(problems.filter((p) => still.includes(p.field)));
  }

  focusProblem() {
    focusProblem(this.form);
  }

  /** Whoever types the first cap of a port wants it to count. @param {EventTarget | null} target */
  #enableFirstBudget(target) {
    const cap = target === this.inputs.soft || target === this.inputs.hard;
    if (cap && (this.#base?.version === 0 || this.#base?.default)) this.enabled.checked = true;
  }
}

/** @param {Settings} a @param {Settings} b */
export function same(a, b) {
  return a.enabled === b.enabled && a.soft_cap_tokens === b.soft_cap_tokens && a.hard_cap_tokens === b.hard_cap_tokens && a.period === b.period;
}

/** An empty field is no cap. @param {string} text */
export const readCap = (text) => text.trim() === '' ? {value: null} : parseTokens(text);
