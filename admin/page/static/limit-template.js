/** The fields of one limit, before any data. Static: data enters as text only. */

/** @param {string} id @param {string} label @param {string} hint */
const capField = (id, label, hint) => `
  <div class="field">
    <label for="limit-${id}">${label}<span class="hidden"> of the limit</span></label>
    <input id="limit-${id}" name="limit-${id}" type="text" autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="No cap" aria-describedby="limit-${id}-error limit-${id}-hint" data-field="${id}">
    <p class="hint" id="limit-${id}-hint">${hint}</p>
    <p class="error" id="limit-${id}-error"></p>
  </div>`;

/** @param {string} id @param {string} label @param {Record<string, string>} options */
const choice = (id, label, options) => `
  <div class="field">
    <label for="limit-${id}">${label}</label>
    <select id="limit-${id}" name="limit-${id}" aria-describedby="limit-${id}-error" data-field="${id}">
      ${Object.entries(options).map(([value, text]) => `<option value="${value}">${text}</option>`).join('')}
    </select>
    <p class="error" id="limit-${id}-error"></p>
  </div>`;

/** @param {string} id @param {string} label */
const weight = (id, label) => `
  <div class="field"><label for="weight-${id}">${label}</label>
    <input id="weight-${id}" name="weight-${id}" type="text" inputmode="decimal" autocomplete="off" placeholder="1"></div>`;

const template = document.createElement('template');
template.innerHTML = `
<form class="limit" novalidate aria-labelledby="limit-title">
  <h4 id="limit-title"></h4>
  <div class="fields">
    <div class="field">
      <label for="limit-name">Name</label>
      <input id="limit-name" name="limit-name" type="text" autocomplete="off" autocapitalize="off" spellcheck="false" aria-describedby="limit-name-error limit-name-hint" data-field="name">
      <p class="hint" id="limit-name-hint">As refusals call it, like ocr-daily</p>
      <p class="error" id="limit-name-error"></p>
    </div>
    ${capField('soft', 'Soft cap', 'Warns, refuses nothing')}
    ${capField('hard', 'Hard cap', 'Refuses calls until the window ends')}
    <div class="field">
      <label for="limit-alerts">More alerts at</label>
      <input id="limit-alerts" name="limit-alerts" type="text" autocomplete="off" autocapitalize="off" spellcheck="false" placeholder="None" aria-describedby="limit-alerts-error limit-alerts-hint" data-field="alert_at">
      <p class="hint" id="limit-alerts-hint">Of the hard cap, or a number: 50%, 800k</p>
      <p class="error" id="limit-alerts-error"></p>
    </div>
    ${choice('unit', 'Unit', {tokens: 'Tokens', requests: 'Calls', weighted: 'Weighted tokens'})}
    ${choice('window', 'Window', {hour: 'Each hour', day: 'Each day', week: 'Each week', month: 'Each month', total: 'In total, without end'})}
    ${choice('per', 'Counted', {'': 'All calls together', feature: 'Each feature by itself', provider: 'Each provider by itself', model: 'Each model by itself', user_id: 'Each user by itself', run_id: 'Each run by itself'})}
  </div>
  <fieldset class="group field weighted" data-field="weights" aria-describedby="weights-error weights-hint"><legend>What a token counts</legend>
    <div class="weights">${weight('input', 'Input')}${weight('cache_read', 'Cache read')}${weight('cache_write', 'Cache write')}${weight('output', 'Output')}</div>
    <p class="hint" id="weights-hint">Empty is 1</p>
    <p class="error" id="weights-error"></p>
  </fieldset>
  <fieldset class="group"><legend>Which calls</legend>
    <div class="match"></div>
    <p class="hint" id="match-hint">Empty is any. A * at the end stands for anything: gpt-5*</p>
  </fieldset>
  <div class="effect" hidden><span class="tag">Now</span><p></p></div>
  <div class="back-test"><span class="tag">Back-test</span><p class="back-test-text" role="status"></p></div>
  <div class="actions">
    <button type="button" class="quiet cancel">Cancel</button>
    <button type="submit" class="primary">Save limit</button>
  </div>
</form>
`;

/** A copy of the fields. */
export const limitFields = () => /** @type {HTMLFormElement} */ (/** @type {DocumentFragment} */ (template.content.cloneNode(true)).firstElementChild);
