/** Our own pages: the overview, the table of ports, and a port's card. */
import './ai-budget-card.js';
import {Api, DEFAULT, Problem} from './api.js';
import {h, need, say} from './dom.js';
import {firstStep} from './empty.js';
import {sentence} from './format.js';
import {portLink, viewIn} from './links.js';
import {OverviewPage} from './overview.js';
import {Poll} from './poll.js';
import {PortList} from './ports.js';
import {PortTable} from './table.js';

/** @typedef {import('./ai-budget-card.js').BudgetCard} BudgetCard */

const LIST_EVERY_MS = 5000;

const api = new Api('/api/v1');
const signedIn = need(document, '#signed-in');
const detail = need(document, '#detail');
const chosen = need(document, '.chosen');
const ports = new PortList(need(document, '.ports'), api, (p) => visit(portLink(p.port_id)));
const overview = new OverviewPage(need(document, '#overview'), api);
const table = new PortTable(need(document, '#table'), api, () => poll.now());
const poll = new Poll(refresh, {every: LIST_EVERY_MS});

const view = () => (portInURL() ? 'port' : !ports.first() ? 'empty' : location.pathname === '/ports' ? 'table' : 'overview');
const portInURL = () => new URLSearchParams(location.search).get('port') ?? '';
const card = () => /** @type {BudgetCard | null} */ (chosen.querySelector('ai-budget-card'));

/** Whether the person lets edits go. */
const mayLeave = () => !card()?.unsaved || confirm('Discard what you changed in this budget?');

/** Goes to another of our pages. @param {string} address */
function visit(address) {
  if (address === location.pathname + location.search) return;
  if (new URLSearchParams(address.split('?')[1]).get('port') !== card()?.port && !mayLeave()) return;
  history.pushState(null, '', address);
  show();
  poll.now();
  (portInURL() ? detail : need(document, '#content')).focus({preventScroll: true});
  scrollTo(0, 0);
}

/** Links to our own pages load nothing anew. @param {MouseEvent} e */
function follow(e) {
  const link = /** @type {Element | null} */ (e.target)?.closest?.('a[href]');
  if (!(link instanceof HTMLAnchorElement) || e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  if (link.origin !== location.origin || link.pathname !== '/' && link.pathname !== '/ports' || link.hash) return;
  e.preventDefault();
  visit(link.pathname + link.search);
}

/** Reads what is in sight again. @param {AbortSignal} [signal] */
async function refresh(signal) {
  const of = view();
  try {
    if (of === 'overview') await overview.refresh(signal);
    else if (of === 'table') await table.refresh(signal);
    else await refreshList(signal);
    trouble(null);
  } catch (e) {
    if (!signal?.aborted && (of === 'overview' || of === 'table')) trouble(e); // the card says it by itself
    throw e;
  }
  if (signedIn.dataset.view === 'empty' && view() !== 'empty') {
    show();
    poll.now();
  }
}

/** The list beside a port; somebody may have named the port. @param {AbortSignal} [signal] */
async function refreshList(signal) {
  await ports.refresh(signal);
  const shown = card(), p = shown && ports.get(shown.port);
  if (!shown || !p || p.name === (shown.getAttribute('name') ?? '')) return;
  if (p.name) shown.setAttribute('name', p.name);
  else shown.removeAttribute('name');
}

/** Says above a page why its figures are not live. @param {unknown} e */
function trouble(e) {
  const notice = need(document, '.page-trouble');
  notice.hidden = e === null;
  if (e === null) return notice.replaceChildren();
  const signIn = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
  if (e instanceof Problem && e.status === 401) return notice.replaceChildren(h('strong', {text: 'You are signed out.'}), ' ', h('a', {href: signIn, text: 'Sign in'}));
  notice.replaceChildren(h('strong', {text: e instanceof Problem ? sentence(e.title) : 'The server cannot be reached.'}), ' Trying again by itself; what is shown is not live.');
}

/** Makes the page show what the address says. */
function show() {
  const id = portInURL();
  const shown = card();
  if (id && shown?.port === id) return look(shown);
  const now = signedIn.dataset.view = view();
  if (now === 'table') table.read();
  ports.mark(id);
  const skip = need(document, '.skip');
  skip.setAttribute('href', id ? '#detail' : '#content');
  say(skip, id ? 'Skip the list of ports' : 'Skip to the content');
  for (const a of document.querySelectorAll('nav a')) a.setAttribute('aria-current', now !== 'empty' && a.getAttribute('href') === (now === 'overview' ? '/' : '/ports') ? (id ? 'true' : 'page') : 'false');
  need(document, '.ports .default-budget').setAttribute('aria-current', String(id === DEFAULT));
  trouble(null);
  document.title = id === DEFAULT ? 'Default budget · Tidegate' : id ? `${ports.get(id)?.name || id} · Tidegate` : now === 'table' ? 'Ports · Tidegate' : 'AI budgets · Tidegate';
  if (!id) return chosen.replaceChildren();
  const name = ports.get(id)?.name;
  const next = h(/** @type {'div'} */ ('ai-budget-card'), {port: id, name: name || null, ...viewIn(location.search), login: `/login?next=${encodeURIComponent(location.pathname + location.search)}`});
  next.addEventListener('budget-load', (e) => {
    const b = /** @type {CustomEvent<import('./api.js').Budget>} */ (e).detail;
    ports.update(b);
  });
  next.addEventListener('budget-view', (e) => looked(/** @type {CustomEvent<import('./usage.js').View>} */ (e)));
  chosen.replaceChildren(next);
  if (id !== DEFAULT && !ports.get(id)) ports.find(id).then((p) => { if (p?.name) next.setAttribute('name', p.name); }, () => {}); // without its name it works too
}

/** The same port, another look at it: nothing of what is being typed is lost. @param {BudgetCard} shown */
function look(shown) {
  for (const [name, value] of Object.entries(viewIn(location.search))) shown.setAttribute(name, value);
}

/** The address follows what somebody looks at; other days are a step back. @param {CustomEvent<import('./usage.js').View>} e */
function looked({detail}) {
  const address = portLink(portInURL(), detail);
  if (address === location.pathname + location.search) return;
  if (detail.range === viewIn(location.search).range) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
}

/** @param {import('./api.js').Session} session */
function begin(session) {
  say(need(document, '.session .name'), session.name);
  need(document, '.session').hidden = false;
  signedIn.hidden = false;
  need(document, 'nav').hidden = false;
  need(document, '.loading').remove();
  for (const e of document.querySelectorAll('.default-budget')) /** @type {HTMLElement} */ (e).hidden = session.ports !== null; // it is nobody's who may manage some ports only
  if (session.ports !== null) for (const e of [need(document, '#overview-title'), need(document, 'nav a')]) say(e, 'Your usage'); // of some ports only
  document.addEventListener('click', follow);
  show();
  window.addEventListener('popstate', () => {
    const here = card()?.port ?? '';
    if (portInURL() !== here && !mayLeave()) return history.pushState(null, '', portLink(here, card()?.usage.view));
    show();
    poll.now();
  });
  poll.start();
}

/** Instead of the page: why there is none, and what to do. @param {(Node | string)[]} content */
function alone(...content) {
  const main = need(document, '#signed-out');
  document.querySelector('.loading')?.remove();
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
    return alone(h('h1', {text: 'You may not see AI budgets'}), h('p', {text: sentence(/** @type {Problem} */ (e).message)}), h('p', {}, 'Ask whoever runs Tidegate for the permission ', h('code', {text: 'admin.view'}), ', or sign out and sign in as somebody who has it.'));
  }
  if (e instanceof Problem) return alone(h('h1', {text: e.title}), h('p', {text: sentence(e.message)}), again);
  console.warn(e);
  alone(h('h1', {text: 'The server cannot be reached'}), h('p', {text: 'Nothing is lost: usage goes on being recorded and checked. Try again in a moment.'}), again);
}

Promise.all([api.session(), ports.refresh()]).then(([session]) => begin(session)).catch(explain);
