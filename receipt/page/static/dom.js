/** Small helpers to build elements without strings of markup. */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props] attributes; `on…` are listeners, `text` is the text
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'text') e.textContent = String(value);
    else if (key.startsWith('on')) e.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
    else e.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children) if (child !== null) e.append(child);
  return e;
}

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
