// Joins it all: which view the address names, who the caller is, and whether the service is there.
import {announce, h} from './dom.js';
import {refreshAges} from './parts.js';
import {Poller} from './poll.js';
import {begin, hasToken, identify, session, signOut} from './session.js';
import {openAudit} from './view_audit.js';
import {openCompare} from './view_compare.js';
import {openData} from './view_data.js';
import {openFleet} from './view_fleet.js';
import {openJob} from './view_job.js';
import {openJobs} from './view_jobs.js';
import {openQueue} from './view_queue.js';
import {openSignIn} from './view_sign_in.js';
import {openTenants} from './view_tenants.js';
import {openTokens} from './view_tokens.js';

const main = document.getElementById('main');
const link = document.getElementById('link');
const trouble = document.getElementById('trouble');

let poller = null;
let identified = false;
let navigated = false;

/** "#/jobs/ID?x=y" as path parts and parameters. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return {parts: path.split('/').filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query ?? '')};
}

function viewOf({parts, query}) {
  const [head = 'jobs', id] = parts;
  const ask = () => poller?.now();
  if (head === 'jobs' && id) return openJob(id, ask);
  if (head === 'jobs') return openJobs(query);
  if (head === 'compare') return openCompare(query);
  if (head === 'queue') return openQueue();
  if (head === 'data') return openData(query, ask);
  if (head === 'fleet') return openFleet(ask);
  if (head === 'tenants') return openTenants(query, ask);
  if (head === 'tokens') return openTokens(query, ask);
  if (head === 'audit') return openAudit(query, ask);
  return openJobs(new URLSearchParams());
}

function setLink(state, text) {
  link.dataset.link = state;
  if (link.textContent !== text) link.textContent = text;
}

function showTrouble(text) {
  trouble.hidden = !text;
  if (trouble.textContent !== text) trouble.textContent = text;
}

function showCaller() {
  const {caller, role} = session;
  const words = {ROLE_VIEWER: 'viewer', ROLE_USER: 'user', ROLE_ADMIN: 'admin'};
  const tenant = caller?.tenant ? caller.tenant.replace('tenants/', '') : '';
  document.getElementById('caller').textContent = caller ? [tenant, words[role]].filter(Boolean).join(' · ') : '';
  document.getElementById('sign-out').hidden = !hasToken();
  document.getElementById('nav-tenants').hidden = !session.tenants;
  // base.css shows by it what is for admins.
  document.body.dataset.role = role;
}

function markNav() {
  const [head = 'jobs'] = route().parts;
  const section = head === 'compare' ? 'jobs' : head;
  for (const item of document.querySelectorAll('#nav a')) {
    if (item.getAttribute('href') === `#/${section}`) {
      item.setAttribute('aria-current', 'page');
    } else {
      item.removeAttribute('aria-current');
    }
  }
}

function place(view) {
  poller?.stop();
  poller = null;
  // A question of the view that is left.
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  main.replaceChildren(view.node);
  document.title = view.title ? `${view.title} · Tundra` : 'Tundra';
  // After a navigation the reading goes on at the new view; at the first load the page starts as any other.
  if (navigated) {
    scrollTo(0, 0);
    main.focus({preventScroll: true});
    announce(view.title);
  }
  navigated = true;
}

function showSignIn(message) {
  identified = false;
  showTrouble('');
  setLink('connecting', 'Signed out');
  showCaller();
  place(openSignIn(message, () => {
    identified = true;
    showCaller();
    show();
  }));
}

function onResult(view, error) {
  if (!error) {
    setLink('live', 'Live');
    showTrouble('');
    refreshAges(main);
    if (view.currentTitle) document.title = `${view.currentTitle()} · Tundra`;
    return;
  }
  if (error.code === 'unauthenticated') {
    const had = hasToken();
    signOut();
    showSignIn(had ? 'The token is not valid, or not any more. Sign in with another one.' : '');
    return;
  }
  if (['unreachable', 'unavailable', 'deadline_exceeded', 'canceled'].includes(error.code)) {
    identified = false;
    setLink('lost', 'Not connected');
    showTrouble('The service does not answer. What you see may be old; this page goes on trying.');
    return;
  }
  setLink('live', 'Live');
  if (view.fail?.(error)) {
    showTrouble('');
  } else if (error.code) {
    showTrouble(error.message);
  } else {
    console.error(error);
    showTrouble(`A fault of this page: ${error.message}`);
  }
}

async function refresh(view) {
  if (identified) return view.refresh();
  const [who, what] = await Promise.allSettled([identify(), view.refresh()]);
  if (who.status === 'rejected') throw who.reason;
  identified = true;
  showCaller();
  if (what.status === 'rejected') throw what.reason;
  // What a caller may do is known only now.
  view.onCaller?.();
}

function show() {
  const where = route();
  const view = viewOf(where);
  place(view);
  markNav();
  poller = new Poller(() => refresh(view), (error) => onResult(view, error), view.everyMs);
  poller.now();
}

document.getElementById('sign-out').addEventListener('click', () => {
  signOut();
  showSignIn('');
});
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', show);
begin();
main.append(h('h1', {class: 'sr'}, 'Tundra'));
show();
