/** Our own page: the ports, the card of the chosen one, and its audit log. */
import './ai-budget-card.js';
import {Api, DEFAULT, Problem} from './api.js';
import {AuditLog} from './audit.js';
import {h, need, say} from './dom.js';
import {firstStep} from './empty.js';
import {sentence} from './format.js';
import {Poll} from './poll.js';
import {PortList} from './ports.js';

/** @typedef {import('./ai-budget-card.js').BudgetCard} BudgetCard */

const LIST_EVERY_MS = 5000;

const api = new Api('/api/v1');
const signedIn = need(document, '#signed-in');
const detail = need(document, '#detail');
const chosen = need(document, '.chosen');
const audit = new AuditLog(need(document, '.audit'), api);
const ports = new PortList(need(document, '.ports'), api, (p) => go(p.port_id));
const wide = matchMedia('(min-width: 60rem)');

const portInURL = () => new URLSearchParams(location.search).get('port') ?? '';
const card = () => /** @type {BudgetCard | null} */ (chosen.querySelector('ai-budget-card'));

/** Whether the person lets edits go. */
const mayLeave = () => !card()?.unsaved || confirm('Discard what you changed in this budget?');

/** Shows another port, and says so in the address. @param {string} id */
function go(id) {
  if (id === portInURL() && card()) return;
  if (!mayLeave()) return;
  history.pushState(null, '', id ? `/?port=${encodeURIComponent(id)}` : '/');
  show();
  detail.focus({preventScroll: true});
  scrollTo(0, 0);
}

/** Makes the page show what the address says. */
function show() {
  let id = portInURL();
  if (!id && wide.matches) {
    id = ports.first()?.port_id ?? '';
    if (id) history.replaceState(null, '', `/?port=${encodeURIComponent(id)}`);
  }
  signedIn.dataset.view = id ? 'port' : ports.first() ? 'list' : 'empty';
  ports.mark(id);
  need(document, '.default-budget').setAttribute('aria-current', String(id === DEFAULT));
  need(document, '.audit').hidden = true;
  document.title = id === DEFAULT ? 'Default budget · Tidegate' : id ? `${ports.get(id)?.name || id} · Tidegate` : 'AI budgets · Tidegate';
  if (!id) return chosen.replaceChildren();
  const name = ports.get(id)?.name;
  const next = h(/** @type {'div'} */ ('ai-budget-card'), {port: id, name: name || null, login: `/login?next=${encodeURIComponent(location.pathname + location.search)}`});
  next.addEventListener('budget-load', (e) => {
    const b = /** @type {CustomEvent<import('./api.js').Budget>} */ (e).detail;
    ports.update(b);
    audit.follow(id, b.version);
  });
  chosen.replaceChildren(next);
  if (id !== DEFAULT && !ports.get(id)) ports.find(id).then((p) => { if (p?.name) next.setAttribute('name', p.name); }, () => {}); // without its name it works too
}

/** @param {import('./api.js').Session} session */
function begin(session) {
  say(need(document, '.session .name'), session.name);
  need(document, '.session').hidden = false;
  signedIn.hidden = false;
  const standard = need(document, '.default-budget');
  standard.hidden = session.ports !== null; // it is nobody's who may manage some ports only
  standard.addEventListener('click', (e) => {
    e.preventDefault();
    go(DEFAULT);
  });
  show();
  window.addEventListener('popstate', () => {
    const here = card()?.port ?? '';
    if (mayLeave()) show();
    else history.pushState(null, '', `/?port=${encodeURIComponent(here)}`);
  });
  wide.addEventListener('change', () => { if (!portInURL()) show(); });
  need(document, '.back').addEventListener('click', (e) => {
    e.preventDefault();
    go('');
  });
  const poll = new Poll(async (signal) => {
    await ports.refresh(signal);
    if (!portInURL() && ports.first() && (wide.matches || signedIn.dataset.view === 'empty')) show();
  }, {every: LIST_EVERY_MS});
  poll.start();
}

/** Instead of the page: why there is none, and what to do. @param {(Node | string)[]} content */
function alone(...content) {
  const main = need(document, '#signed-out');
  main.replaceChildren(h('div', {class: 'sheet'}, ...content));
  main.hidden = false;
}

/** @param {unknown} e */
function explain(e) {
  const status = e instanceof Problem ? e.status : 0;
  const again = h('button', {type: 'button', class: 'primary', text: 'Try again', onclick: () => location.reload()});
  if (status === 401) {
    const next = encodeURIComponent(location.pathname + location.search);
    const [title, ...steps] = firstStep('no-title', '', 'Open the one-time link that Tidegate printed when it started. For a new one, run this beside the server and open the address it prints; it works once, for ten minutes.', 'tidegate login-link');
    title.remove();
    return alone(h('h1', {text: 'Sign in to see your ports'}), ...steps, h('p', {}, h('a', {href: `/login?next=${next}`, text: 'Other ways to sign in'})));
  }
  if (status === 403) {
    need(document, '.session').hidden = false;
    return alone(h('h1', {text: 'You may not manage AI budgets'}), h('p', {text: sentence(/** @type {Problem} */ (e).message)}), h('p', {}, 'Ask whoever runs Tidegate for the permission ', h('code', {text: 'admin.manage_settings'}), ', or sign out and sign in as somebody who has it.'));
  }
  if (e instanceof Problem) return alone(h('h1', {text: e.title}), h('p', {text: sentence(e.message)}), again);
  console.warn(e);
  alone(h('h1', {text: 'The server cannot be reached'}), h('p', {text: 'Nothing is lost: usage goes on being recorded and checked. Try again in a moment.'}), again);
}

Promise.all([api.session(), ports.refresh()]).then(([session]) => begin(session)).catch(explain);
