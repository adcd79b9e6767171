import {h, need, say} from './dom.js';
import {parseTokens, typed} from './format.js';
import {readCap} from './form.js';
import {labels, LABELS} from './limit-words.js';
import {limitFields} from './limit-template.js';
import {complain, complainedOf, focusProblem} from './problems.js';

/** @typedef {import('./api.js').Limit} Limit */
/** @typedef {import('./api.js').FieldProblem} FieldProblem */

const WEIGHTS = /** @type {const} */ (['input', 'cache_read', 'cache_write', 'output']);

/** The inputs of one limit. Knows nothing of the server. */
export class LimitForm {
  #seeded = '';

  /** @param {{changed: () => void, submit: () => void, cancel: () => void}} on */
  constructor(on) {
    this.on = on;
    this.root = limitFields();
    const match = need(this.root, '.match');
    for (const d of labels()) {
      const [id, name] = [`match-${d}`, LABELS[d]];
      match.append(h('div', {class: 'field'},
        h('label', {for: id, text: name.charAt(0).toUpperCase() + name.slice(1)}),
        h('input', {id, name: id, type: 'text', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', placeholder: 'Any', 'aria-describedby': `${id}-error match-hint`, 'data-field': `match.${d}`}),
        h('p', {class: 'error', id: `${id}-error`})));
    }
    this.root.addEventListener('input', () => this.#typed());
    this.root.addEventListener('submit', (e) => {
      e.preventDefault();
      on.submit();
    });
    need(this.root, '.cancel').addEventListener('click', on.cancel);
  }

  /** @param {string} name */
  #input(name) {
    return /** @type {HTMLInputElement | HTMLSelectElement} */ (need(this.root, `[name=${name}]`));
  }

  /** @param {string} name */
  #text(name) {
    return this.#input(name).value.trim();
  }

  /** Fills the fields; null: for a new limit. @param {Limit | null} l */
  seed(l) {
    say(need(this.root, 'h4'), l ? `Edit limit ${l.name}` : 'New limit');
    this.#input('limit-name').value = l?.name ?? '';
    this.#input('limit-soft').value = l?.soft === undefined ? '' : typed(l.soft);
    this.#input('limit-hard').value = l?.hard === undefined ? '' : typed(l.hard);
    this.#input('limit-alerts').value = (l?.alert_at ?? []).join(', ');
    this.#input('limit-unit').value = l?.unit ?? 'tokens';
    this.#input('limit-window').value = l?.window ?? 'day';
    this.#input('limit-per').value = l?.per ?? '';
    for (const d of labels()) this.#input(`match-${d}`).value = l?.match?.[d] ?? '';
    for (const k of WEIGHTS) this.#input(`weight-${k}`).value = l?.weights?.[k] === undefined ? '' : String(l.weights[k]);
    this.#typed();
    complain(this.root, []);
    this.#seeded = this.#raw();
  }

  #raw() {
    return JSON.stringify([...new FormData(this.root)]);
  }

  /** Whether the fields say something else than they were filled with. */
  get touched() {
    return this.#raw() !== this.#seeded;
  }

  #typed() {
    need(this.root, '.weighted').hidden = this.#text('limit-unit') !== 'weighted';
    const still = complainedOf(this.root);
    if (still.length > 0) complain(this.root, this.read([]).problems.filter((p) => still.includes(p.field)));
    this.on.changed();
  }

  /**
   * What the fields say. The limit is null when it cannot be read. What else a limit has
   * to be, the server says.
   * @param {string[]} taken names of other limits
   * @returns {{limit: Limit | null, problems: FieldProblem[]}}
   */
  read(taken) {
    /** @type {FieldProblem[]} */
    const problems = [];
    const limit = /** @type {Limit} */ ({name: this.#text('limit-name'), window: this.#text('limit-window')});
    if (taken.includes(limit.name)) problems.push({field: 'name', rule: 'is the name of another limit'});
    for (const cap of /** @type {const} */ (['soft', 'hard'])) {
      const parsed = readCap(this.#text(`limit-${cap}`));
      if ('problem' in parsed) problems.push({field: cap, rule: parsed.problem});
      else if (parsed.value !== null) limit[cap] = parsed.value;
    }
    if (problems.length === 0 && limit.soft === undefined && limit.hard === undefined) problems.push({field: 'hard', rule: 'needs a number, or the soft cap does: without a cap it limits nothing'});
    if (limit.soft !== undefined && limit.hard !== undefined && limit.soft > limit.hard) problems.push({field: 'soft', rule: `must be at most the hard cap, ${typed(limit.hard)}`});
    this.#readAlerts(limit, problems);
    const [unit, per] = [this.#text('limit-unit'), this.#text('limit-per')];
    if (unit !== 'tokens') limit.unit = /** @type {Limit['unit']} */ (unit);
    if (per) limit.per = /** @type {Limit['per']} */ (per);
    const match = labels().map((d) => [d, this.#text(`match-${d}`)]).filter(([, v]) => v);
    if (match.length > 0) limit.match = Object.fromEntries(match);
    if (unit === 'weighted') this.#readWeights(limit, problems);
    return {limit: problems.length > 0 ? null : limit, problems};
  }

  /** A comma may group digits, so that only one before a space, or after a %, is between two. @param {Limit} limit @param {FieldProblem[]} problems */
  #readAlerts(limit, problems) {
    const read = this.#text('limit-alerts').split(/[,;]\s+|[;\s]+|(?<=%),/).filter(Boolean).map((word) => {
      const parsed = /^\d+%$/.test(word) ? {value: word} : parseTokens(word);
      return 'value' in parsed ? parsed.value : null;
    });
    if (read.some((at) => at === null || at === 0)) problems.push({field: 'alert_at', rule: 'must be percentages or numbers, like 50%, 80%, 800k'});
    else if (read.length > 0) limit.alert_at = /** @type {(string | number)[]} */ (read);
  }

  /** @param {Limit} limit @param {FieldProblem[]} problems */
  #readWeights(limit, problems) {
    const given = WEIGHTS.map((k) => [k, this.#text(`weight-${k}`)]).filter(([, v]) => v);
    if (given.some(([, v]) => !/^\d{1,7}(\.\d{1,3})?$/.test(v))) problems.push({field: 'weights', rule: 'must be numbers with at most 3 decimals, like 0.1 or 4'});
    else if (given.length > 0) limit.weights = Object.fromEntries(given.map(([k, v]) => [k, Number(v)]));
  }

  /** Writes 1.5M as 1,500,000. */
  tidy() {
    for (const cap of ['limit-soft', 'limit-hard']) {
      const parsed = parseTokens(this.#text(cap));
      if ('value' in parsed) this.#input(cap).value = parsed.value === null ? '' : typed(parsed.value);
    }
  }

  /**
   * Shows each problem at its input, those that the server found too, and goes to the first.
   * @param {FieldProblem[]} problems
   * @returns {FieldProblem[]} those that belong to no input
   */
  complain(problems) {
    const homeless = complain(this.root, problems.map((p) => ({...p, field: fieldOf(p.field)})));
    focusProblem(this.root);
    return homeless;
  }
}

/** "limits[2] (ocr).match.model" as match.model. @param {string} field */
const fieldOf = (field) => field.replace(/^limits\[\d+\](?: \([^)]*\))?\./, '').replace(/^weights\..*/, 'weights').replace(/^alert_at\[.*/, 'alert_at');
