/**
 * The card's style sheets, read before the card is defined, so that it is never seen
 * without them.
 */
async function load(/** @type {string} */ name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} did not load: status ${response.status}`);
  return new CSSStyleSheet().replace(await response.text());
}

export const sheets = await Promise.all(['tokens.css', 'controls.css', 'card.css', 'chart.css', 'usage.css', 'form.css', 'limits.css', 'attention.css', 'history.css'].map(load));
