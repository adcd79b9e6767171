import {Problem} from './api.js';
import {h, need} from './dom.js';
import {sentence} from './format.js';

/** @typedef {import('./api.js').FieldProblem} FieldProblem */

/**
 * Shows each problem at its input.
 * @param {HTMLFormElement} form @param {FieldProblem[]} problems
 * @returns {FieldProblem[]} those that belong to no input
 */
export function complain(form, problems) {
  const homeless = new Set(problems);
  for (const field of form.querySelectorAll('[data-field]')) {
    const mine = problems.filter((p) => p.field === field.getAttribute('data-field'));
    mine.forEach((p) => homeless.delete(p));
    const id = field.getAttribute('aria-describedby')?.split(' ')[0];
    need(form, `#${id}`).textContent = mine.map((p) => sentence(p.rule)).join(' ');
    if (mine.length > 0) field.setAttribute('aria-invalid', 'true');
    else field.removeAttribute('aria-invalid');
  }
  return [...homeless];
}

/** What is complained of now. @param {HTMLFormElement} form */
export const complainedOf = (form) => [...form.querySelectorAll('[aria-invalid]')].map((e) => e.getAttribute('data-field'));

/** Puts the focus where the first problem is. @param {HTMLFormElement} form */
export function focusProblem(form) {
  const field = form.querySelector('[aria-invalid]');
  const target = field?.matches('input, select') ? field : field?.querySelector('input');
  /** @type {HTMLElement | null | undefined} */ (target)?.focus();
}

/**
 * Why something was not saved, and what to do.
 * @param {unknown} e @param {string} login @param {string} again 'save again'
 * @returns {string | (string | Node)[]}
 */
export function failure(e, login, again) {
  if (!(e instanceof Problem)) return `The server did not answer. Your change may or may not be stored: look before you ${again}.`;
  if (e.status === 412) return `Not saved: somebody else changed this budget in the meantime. What is stored now is shown; ${again}.`;
  if (e.status === 401) return ['Not saved: your session has ended. ', h('a', {href: login, target: '_blank', rel: 'noopener', text: 'Sign in'}), `, then ${again}. What you typed stays here.`];
  return `Not saved. ${sentence(e.message)}`;
}
