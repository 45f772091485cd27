// Tokens, for admins: whose they are, what they may and how long; made here, shown once, and revoked.
import {call} from './api.js';
import {confirmAction, openForm, showSecret} from './dialogs.js';
import {announce, empty, h, keyed, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {ageNode, setAge} from './parts.js';
import {session} from './session.js';

const PAGE = 50;
const ROLES = {ROLE_VIEWER: 'viewer', ROLE_USER: 'user', ROLE_ADMIN: 'admin'};
const DAY = 86400;

async function createToken(tenant, done) {
  // Without them a name is typed.
  const {tenants: known = []} = await call('AccessService/ListTenants', {pageSize: 1000}).catch(() => ({}));
  let token = null;
  await openForm({
    title: 'New token',
    fields: [
      {name: 'displayName', label: 'For what or whom', path: 'token.display_name', help: 'For example laptop, or nightly sweep.'},
      {name: 'tenant', label: 'Tenant', path: 'token.tenant', value: tenant || format.idOf(session.caller?.tenant),
        known: known.map((one) => format.idOf(one.name)), help: 'What it makes belongs to this tenant.'},
      {name: 'role', label: 'Role', path: 'token.role', value: 'ROLE_USER',
        choices: [['ROLE_VIEWER', 'viewer: reads'], ['ROLE_USER', 'user: makes and steers jobs'], ['ROLE_ADMIN', 'admin: everything']]},
      {name: 'lifetime', label: 'Good for', path: 'lifetime', value: `${90 * DAY}s`,
        choices: [[`${DAY}s`, 'a day'], [`${7 * DAY}s`, '7 days'], [`${30 * DAY}s`, '30 days'], [`${90 * DAY}s`, '90 days'], [`${365 * DAY}s`, 'a year'],
          ['', 'until it is revoked']]},
    ],
    verb: 'Create token',
    act: async ({displayName, tenant: of, role, lifetime}) => {
      token = await call('AccessService/CreateToken', {token: {displayName, tenant: `tenants/${of}`, role}, ...(lifetime ? {lifetime} : {})});
    },
  });
  if (!token) return;
  done();
  await showSecret({
    title: `The token ${token.displayName}`,
    text: 'Copy it now: it is not shown again, and the service keeps only a hash of it. Who has it is let in.',
    secret: token.secret,
  });
}

async function revoke(token, done) {
  const own = token.name === session.caller?.token;
  await confirmAction({
    title: `Revoke ${token.displayName}?`,
    text: [`It is a token of ${format.idOf(token.tenant)} with role ${ROLES[token.role] ?? 'none'}. Programs and people that use it are refused from now on. This cannot be undone.`,
      ...(own ? ['It is the token that this page uses: you will be signed out.'] : [])],
    verb: 'Revoke token',
    danger: true,
    act: async () => {
      await call('AccessService/DeleteToken', {name: token.name});
      announce(`The token ${token.displayName} is revoked`);
      done();
    },
  });
}

function rowOf(token, done) {
  const made = ageNode('');
  const ends = h('span');
  const own = h('span', {class: 'chip'}, 'this page’s');
  const node = h('tr', {}, h('th', {scope: 'row'}, h('span', {class: 'name'}, token.displayName), ' ', own, h('div', {class: 'fine'}, format.idOf(token.name))),
    h('td', {'data-label': 'Tenant'}, h('span', {}, format.idOf(token.tenant))),
    h('td', {'data-label': 'Role'}, h('span', {}, ROLES[token.role] ?? 'none')),
    h('td', {'data-label': 'Ends'}, ends), h('td', {class: 'num soft', 'data-label': 'Created'}, made),
    h('td', {}, h('div', {class: 'row-actions'}, h('button', {type: 'button', class: 'small danger', 'data-act': 'Revoke',
      'aria-label': `Revoke ${token.displayName}`, on: {click: () => revoke(token, done)}}, 'Revoke'))));
  const update = (now) => {
    own.hidden = now.name !== session.caller?.token;
    const left = now.expireTime ? (Date.parse(now.expireTime) - Date.now()) / 1000 : NaN;
    setText(ends, Number.isNaN(left) ? 'never' : left > 0 ? `in ${format.duration(left)}` : 'has ended');
    ends.className = left <= 7 * DAY ? 'warn-text' : '';
    if (now.expireTime) ends.title = new Date(now.expireTime).toLocaleString();
    setAge(made, now.createTime);
  };
  return {node, update};
}

export function openTokens(query, ask) {
  const tenant = query.get('tenant') ?? '';
  const body = h('tbody');
  const words = [['', 'Token'], ['', 'Tenant'], ['', 'Role'], ['', 'Ends'], ['num', 'Created']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Tokens, newest first'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)),
      h('th', {scope: 'col'}, h('span', {class: 'sr'}, 'Actions')))), body);
  const card = h('div', {class: 'card'}, skeleton(4));
  const pager = new Pager({size: PAGE, onTurn: ask});
  const add = h('button', {type: 'button', class: 'primary', 'data-needs': 'admin', 'data-act': 'New token',
    on: {click: () => createToken(tenant, ask)}}, 'New token');
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Tokens'),
    h('p', {class: 'lead'}, tenant ? [`Of the tenant ${tenant}. `, h('a', {href: '#/tokens'}, 'Show all')] : 'Who is let in. A secret is shown once, when its token is made.')), add),
  card, pager.node);
  const refresh = async () => {
    const page = await pager.ask((fields) => call('AccessService/ListTokens', {...fields, ...(tenant ? {tenant: `tenants/${tenant}`} : {})}));
    if (!page) return;
    const tokens = page.tokens ?? [];
    if (tokens.length === 0) card.replaceChildren(empty('No tokens', tenant ? `Nobody is let in for ${tenant}.` : 'Nobody is let in by a token.'));
    else if (card.firstChild !== table) card.replaceChildren(table);
    keyed(body, tokens, (token) => token.name, (token) => rowOf(token, ask));
    pager.update(tokens.length, page.nextPageToken);
  };
  const fail = (error) => {
    if (error.code !== 'permission_denied') return false;
    card.replaceChildren(empty('Not to be seen here', 'Tokens are shown to admins.'));
    return true;
  };
  return {node, title: 'Tokens', refresh, fail, everyMs: 4000};
}
