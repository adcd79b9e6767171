/** Small helpers to build elements without strings of markup. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {Element} e
 * @param {Record<string, unknown>} props attributes; `on…` are listeners, `text` is the text
 * @param {(Node | string | null | undefined)[]} children
 */
function fill(e, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'text') e.textContent = String(value);
    else if (key.startsWith('on')) e.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
    else e.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) e.append(child);
  return e;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props]
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export const h = (tag, props = {}, ...children) => /** @type {any} */ (fill(document.createElement(tag), props, children));

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [props]
 * @param {...(Node | string | null | undefined)} children
 */
export const svg = (tag, props = {}, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/**
 * Sets the text only when it differs, so that screen readers hear changes only.
 * @param {Element} e @param {string} text
 */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/**
 * A custom property for the style sheet. Through the CSSOM, which a strict content
 * security policy allows; style attributes it does not.
 * @param {HTMLElement} e @param {string} name @param {number} value
 */
export const place = (e, name, value) => e.style.setProperty(name, value.toFixed(4));

/**
 * @template {Element} [E=HTMLElement]
 * @param {ParentNode} root @param {string} selector
 * @returns {E}
 */
export function need(root, selector) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`nothing matches ${selector}`);
  return /** @type {any} */ (found);
}
