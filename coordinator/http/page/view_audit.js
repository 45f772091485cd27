// The audit log, for admins: who changed something or wanted to, newest first.
import {call} from './api.js';
import {empty, h, keyed, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {jobLink} from './parts.js';

const PAGE = 50;
const CODES = ['OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS', 'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE', 'UNIMPLEMENTED', 'INTERNAL', 'UNAVAILABLE', 'DATA_LOSS', 'UNAUTHENTICATED'];

function resourceOf(resource) {
  if (!resource) return h('span', {class: 'soft'}, '–');
  return /^jobs\/[^/]+$/.test(resource) ? jobLink(resource, resource) : h('span', {}, resource);
}

function rowOf(entry, names) {
  const code = CODES[entry.code ?? 0] ?? `code ${entry.code}`;
  const actor = h('span', {class: 'name'}, names.get(entry.actor) ?? entry.actor ?? '–');
  const role = {ROLE_VIEWER: 'viewer', ROLE_USER: 'user', ROLE_ADMIN: 'admin'}[entry.role];
  const node = h('tr', {},
    h('td', {'data-label': 'When', class: 'when'}, h('time', {datetime: entry.time, title: new Date(entry.time).toLocaleString()}, format.clock(entry.time))),
    h('th', {scope: 'row', 'data-label': 'What'}, h('div', {}, h('span', {class: 'name'}, entry.method), h('div', {class: 'fine'}, resourceOf(entry.resource)))),
    h('td', {'data-label': 'Who'}, h('div', {}, actor,
      h('div', {class: 'fine'}, [format.idOf(entry.tenant), role, names.has(entry.actor) ? format.idOf(entry.actor) : ''].filter(Boolean).join(' · ')))),
    h('td', {'data-label': 'Outcome'}, h('div', {}, h('span', {class: entry.code ? 'bad-text' : ''}, code),
      entry.message ? h('div', {class: 'fine'}, entry.message) : null)),
    h('td', {'data-label': 'From', class: 'soft'}, h('span', {}, entry.peer || '–')));
  return {node, update: () => {}};
}

export function openAudit(_, ask) {
  const body = h('tbody');
  const table = h('table', {class: 'cards audit'}, h('caption', {class: 'sr'}, 'Audit log, newest first'),
    h('thead', {}, h('tr', {}, ['When', 'What', 'Who', 'Outcome', 'From'].map((word) => h('th', {scope: 'col'}, word)))), body);
  const card = h('div', {class: 'card'}, skeleton(8));
  const pager = new Pager({size: PAGE, onTurn: ask});
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Audit log'),
    h('p', {class: 'lead'}, 'Every call that changed something or wanted to, with who made it and how it ended.'))), card, pager.node);
  // Display names of the tokens that there still are.
  const names = new Map();
  let named = false;
  const refresh = async () => {
    const page = await pager.ask((fields) => call('AccessService/ListAuditEntries', fields));
    if (!page) return;
    const entries = page.entries ?? [];
    if (!named) {
      const {tokens = []} = await call('AccessService/ListTokens', {pageSize: 1000});
      for (const token of tokens) names.set(token.name, token.displayName);
      named = true;
    }
    if (entries.length === 0) card.replaceChildren(empty('Nothing yet', 'Nobody has changed anything.'));
    else if (card.firstChild !== table) card.replaceChildren(table);
    keyed(body, entries, (entry) => entry.sequence, (entry) => rowOf(entry, names));
    pager.update(entries.length, page.nextPageToken);
  };
  const fail = (error) => {
    if (error.code !== 'permission_denied') return false;
    card.replaceChildren(empty('Not to be seen here', 'The audit log is shown to admins.'));
    return true;
  };
  return {node, title: 'Audit log', refresh, fail, everyMs: 4000};
}
