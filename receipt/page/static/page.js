/** The page: one photo after the other. */
import {Problem, scan, session} from './api.js';
import {h, need} from './dom.js';
import {CURRENCIES, ReceiptForm} from './form.js';
import {KINDS, PhotoInput} from './photo.js';

/** @typedef {import('./api.js').Scan} Scan */

const main = need(document, '#signed-in');
const port = /** @type {HTMLInputElement} */ (need(document, '#port'));
const progress = need(document, '.progress');
const result = need(document, '.result');
const title = need(document, '#result-title');
const notices = need(result, '.notices');
const outcome = need(result, '.outcome');
const cost = need(result, '.cost');
const count = new Intl.NumberFormat('en');

let maxBytes = Infinity;
/** @type {AbortController | null} */
let running = null;
/** @type {File | null} dropped before anyone said for which port */
let waiting = null;

const photo = new PhotoInput(need(document, '.choose'), read);
const form = new ReceiptForm(need(result, 'form.receipt'), async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    outcome.textContent = 'Copied.';
  } catch {
    outcome.textContent = 'The browser does not let this page copy.';
  }
});
form.form.addEventListener('input', () => { outcome.textContent = ''; });
need(result, '.again').addEventListener('click', () => {
  show(null);
  photo.show(null);
  say('');
  need(document, '#choose').focus();
});

/** Sends a photo and shows what came of it. A newer photo takes its place. @param {File} file */
async function read(file) {
  const id = port.value.trim();
  say('');
  if (!port.checkValidity() || !id) {
    port.setAttribute('aria-invalid', 'true');
    need(document, '#port-error').textContent = 'Say whose budget pays: a port is 1 to 64 letters, digits, _ and -';
    port.focus();
    photo.show(file);
    waiting = file;
    return;
  }
  waiting = null;
  localStorage.setItem('port', id);
  running?.abort();
  const mine = running = new AbortController();
  photo.show(null);
  show(null);
  if (!KINDS.includes(file.type)) return say('This is no JPEG, PNG or WebP picture.', true);
  if (file.size > maxBytes) return say(`The photo is larger than ${Math.floor(maxBytes / 2 ** 20)} MiB: take it with a lower resolution.`, true);
  photo.show(file);
  say('Reading…');
  progress.classList.add('busy');
  try {
    const answer = await scan(id, file, mine.signal);
    if (mine !== running) return;
    say('');
    show(answer);
  } catch (e) {
    if (mine !== running) return;
    if (e instanceof Problem && e.status === 401) return begin();
    say(e instanceof Problem ? `${e.title}: ${e.message}.` : 'The server cannot be reached. Try again in a moment.', true);
  } finally {
    if (mine === running) progress.classList.remove('busy');
  }
}

/** @param {string} text @param {boolean} [wrong] */
function say(text, wrong = false) {
  progress.replaceChildren(wrong ? h('span', {class: 'error', text}) : text);
  if (text) progress.scrollIntoView({block: 'nearest'});
}

/** @param {Scan | null} answer null: nothing yet */
function show(answer) {
  main.dataset.view = answer ? 'result' : '';
  result.hidden = !answer;
  outcome.textContent = '';
  if (!answer) return;
  const typed = answer.source === 'manual';
  title.textContent = typed ? 'Please type this receipt' : 'Please check what was read';
  notices.replaceChildren();
  if (typed) notices.append(h('p', {class: `notice ${answer.reason === 'budget-exceeded' ? 'hard' : 'info'}`}, h('strong', {text: headline(answer.reason)}), ' ', answer.detail ?? ''));
  if (answer.soft_cap_warning) notices.append(h('p', {class: 'notice soft'}, h('strong', {text: 'Soft cap reached.'}), ' ', answer.soft_cap_warning.message));
  form.fill(answer.receipt);
  cost.textContent = spent(answer);
  result.focus({preventScroll: true});
  result.scrollIntoView({block: 'nearest'});
}

/** @param {string | undefined} reason */
function headline(reason) {
  switch (reason) {
    case 'budget-exceeded': return 'AI budget used up.';
    case 'gate-unavailable': return 'The budget cannot be checked.';
    case 'unreadable-receipt': return 'Nothing could be read.';
    default: return 'No AI right now.';
  }
}

/** What the reading cost and what is left, in one line. @param {Scan} answer */
function spent({usage, budget}) {
  const parts = [];
  if (usage) {
    const figures = usage.measured_by === 'provider' ? '' : ', estimated';
    parts.push(`Read by ${usage.model}: ${count.format(usage.total_tokens)} tokens${figures}${usage.request_id ? ` (${usage.request_id})` : ''}.`);
  }
  if (budget) {
    const of = budget.hard_cap_tokens === null ? '' : ` of ${count.format(budget.hard_cap_tokens)}`;
    parts.push(`${usage ? 'Before it, the port had' : 'The port has'} used ${count.format(budget.used_tokens)}${of} tokens.`);
  }
  return parts.join(' ');
}

/** Instead of the page: why there is none, and what to do. @param {...(Node | string)} content */
function alone(...content) {
  main.hidden = true;
  document.querySelector('.loading')?.remove();
  const sheet = need(document, '#signed-out');
  sheet.replaceChildren(h('div', {class: 'sheet'}, ...content));
  sheet.hidden = false;
}

/** @param {unknown} e */
function explain(e) {
  if (e instanceof Problem && e.status === 401) return location.replace(`/login?next=${encodeURIComponent(location.pathname + location.search)}`); // which knows all ways
  if (e instanceof Problem && e.status === 403) {
    need(document, '.session').hidden = false;
    return alone(h('h1', {text: 'You may not scan receipts'}), h('p', {text: `${e.message}.`}), h('p', {}, 'Ask whoever runs this for the permission ', h('code', {text: 'expenses.scan'}), '.'));
  }
  const again = h('button', {type: 'button', class: 'primary', text: 'Try again', onclick: () => location.reload()});
  if (e instanceof Problem) return alone(h('h1', {text: e.title}), h('p', {text: e.message}), again);
  alone(h('h1', {text: 'The server cannot be reached'}), h('p', {text: 'Try again in a moment.'}), again);
}

/** Shows the page to whoever is signed in. */
async function begin() {
  try {
    const s = await session();
    need(document, '.session .name').textContent = s.name;
    need(document, '.session').hidden = false;
    maxBytes = s.max_bytes;
    need(document, '.limits').textContent = `JPEG, PNG or WebP, up to ${Math.floor(s.max_bytes / 2 ** 20)} MiB`;
    need(document, '.fate').textContent = s.provider && s.provider !== 'tesseract'
      ? `Nothing is stored here. The photo goes to ${s.provider}, which reads it.`
      : 'Nothing is stored here: the photo is read on this server and forgotten.';
    need(document, '#ports').replaceChildren(...(s.ports ?? []).map((id) => h('option', {value: id})));
    port.value ||= new URLSearchParams(location.search).get('port') ?? (s.ports?.length === 1 ? s.ports[0] : localStorage.getItem('port') ?? '');
    document.querySelector('.loading')?.remove();
    main.hidden = false;
  } catch (e) {
    explain(e);
  }
}

const names = new Intl.DisplayNames('en', {type: 'currency'});
need(document, '#currencies').replaceChildren(...CURRENCIES.map((code) => h('option', {value: code, label: names.of(code) ?? code})));
port.addEventListener('input', () => {
  port.removeAttribute('aria-invalid');
  need(document, '#port-error').textContent = '';
});
port.addEventListener('change', () => {
  if (waiting) read(waiting);
});
begin();
