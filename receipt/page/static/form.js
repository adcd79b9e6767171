/** The receipt as a form: what was read, to be corrected, or nothing, to be typed. */
import {h, need} from './dom.js';

/** @typedef {import('./api.js').Receipt} Receipt @typedef {import('./api.js').Item} Item */

/** @type {Receipt} */
const EMPTY = {merchant: null, date: null, total: null, currency: null, items: []};

/** The codes of ISO 4217 that the browser knows. */
export const CURRENCIES = Intl.supportedValuesOf('currency');

/** An amount with as many decimals as its currency has: 103.90 euros, 1200 yen. @param {number | null} n @param {string | null} currency */
function money(n, currency) {
  if (n === null) return '';
  const decimals = currency && CURRENCIES.includes(currency) ? new Intl.NumberFormat('en', {style: 'currency', currency}).resolvedOptions().maximumFractionDigits ?? 2 : 2;
  return n.toFixed(Number.isInteger(n) ? Math.min(decimals, 2) : 2);
}

/** A number as people type it: 1,234.50 or 1.234,50. NaN when it is none. @param {string} text */
export function number(text) {
  const digits = text.trim().replace(/[\s'’]/g, '');
  const plain = /[.,]\d{1,2}$/.test(digits)
    ? digits.replace(/[.,](?=.*[.,])/g, '').replace(',', '.')
    : digits.replace(/[.,]/g, '');
  return /^-?\d+(\.\d+)?$/.test(plain) ? Number(plain) : NaN;
}

/** @param {string} text */
const textOrNull = (text) => text.trim() || null;

/** @param {string} text */
const numberOrNull = (text) => (text.trim() ? number(text) : null);

export class ReceiptForm {
  /** @param {HTMLFormElement} form @param {(text: string) => Promise<void>} copied */
  constructor(form, copied) {
    this.form = form;
    this.list = need(form, '.items ol');
    need(form, '.add').addEventListener('click', () => this.#add({description: '', quantity: null, amount: null}, true));
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      const receipt = this.read();
      if (receipt) copied(JSON.stringify(receipt, null, 2));
    });
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.form.elements.namedItem(name));
  }

  /** @param {Receipt | null} receipt null: everything is to be typed */
  fill(receipt) {
    const r = receipt ?? EMPTY;
    this.#field('merchant').value = r.merchant ?? '';
    this.#field('date').value = r.date ?? '';
    this.#field('total').value = money(r.total, r.currency);
    this.#field('currency').value = r.currency ?? (receipt ? '' : localStorage.getItem('currency') ?? ''); // who types one receipt after the other types it once
    for (const name of ['total', 'currency']) this.#invalid(this.#field(name), '');
    this.list.replaceChildren();
    for (const item of r.items) this.#add(item, false, r.currency);
  }

  /** @param {Item} item @param {boolean} focus @param {string | null} [currency] */
  #add(item, focus, currency = null) {
    const quantity = h('input', {type: 'text', inputmode: 'decimal', class: 'quantity', 'aria-label': 'Quantity', placeholder: 'Qty', value: item.quantity ?? ''});
    const description = h('input', {type: 'text', class: 'description', 'aria-label': 'Description', placeholder: 'Description', maxlength: '200', value: item.description});
    const amount = h('input', {type: 'text', inputmode: 'decimal', class: 'amount', 'aria-label': 'Amount', placeholder: '0.00', value: money(item.amount, currency)});
    const row = h('li', {}, quantity, description, amount);
    row.append(h('button', {type: 'button', class: 'act remove', 'aria-label': 'Remove the item', text: '×', onclick: () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      /** @type {HTMLElement | null | undefined} */ (next?.querySelector('.remove') ?? this.form.querySelector('.add'))?.focus();
    }}));
    this.list.append(row);
    if (focus) description.focus();
  }

  /** @param {HTMLInputElement} input @param {string} message */
  #invalid(input, message) {
    if (message) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
    const error = input.id ? this.form.querySelector(`#${input.id}-error`) : null;
    if (error) error.textContent = message;
  }

  /** What the form says; null when an amount is none. @returns {Receipt | null} */
  read() {
    const wrong = [this.#field('total'), .../** @type {NodeListOf<HTMLInputElement>} */ (this.list.querySelectorAll('.quantity, .amount'))].filter((input) => {
      const bad = Number.isNaN(numberOrNull(input.value));
      this.#invalid(input, bad ? 'Write it like 103.90' : '');
      return bad;
    });
    const currency = textOrNull(this.#field('currency').value.toUpperCase());
    const unknown = currency !== null && !CURRENCIES.includes(currency);
    this.#invalid(this.#field('currency'), unknown ? 'Three letters, such as EUR' : '');
    if (unknown) wrong.push(this.#field('currency'));
    if (wrong.length) {
      wrong[0].focus();
      return null;
    }
    if (currency) localStorage.setItem('currency', currency);
    /** @param {Element} row @param {string} name */
    const value = (row, name) => /** @type {HTMLInputElement} */ (need(row, `.${name}`)).value;
    return {
      merchant: textOrNull(this.#field('merchant').value),
      date: textOrNull(this.#field('date').value),
      total: numberOrNull(this.#field('total').value),
      currency,
      items: [...this.list.children]
        .map((row) => ({description: value(row, 'description').trim(), quantity: numberOrNull(value(row, 'quantity')), amount: numberOrNull(value(row, 'amount'))}))
        .filter((item) => item.description || item.amount !== null),
    };
  }
}
