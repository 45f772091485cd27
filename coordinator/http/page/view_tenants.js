// Tenants, what they may use and what they use. An admin makes them, changes their quotas and deletes them.
import {call} from './api.js';
import {confirmAction, FieldError, openForm} from './dialogs.js';
import {announce, empty, h, keyed, setAttributes, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {ageNode, setAge} from './parts.js';
import {isAdmin} from './session.js';

const PAGE = 50;

/** {node, update(used, most)}: a figure with a bar where there is a quota. */
function meterOf(label, words) {
  const text = h('span');
  const bar = h('progress', {max: 1, value: 0});
  const node = h('div', {class: 'meter'}, text, bar);
  const update = (used, most) => {
    const bounded = most !== undefined && most !== null;
    setText(text, bounded ? `${words(used)} of ${words(most)}` : `${words(used)}, no quota`);
    bar.hidden = !bounded;
    const share = bounded ? Math.min(1, Number(used) / Math.max(1, Number(most))) : 0;
    setAttributes(bar, {value: share, class: share >= 1 ? 'failed' : '', 'aria-label': `${label}: ${Math.round(100 * share)} percent of the quota`});
  };
  return {node, update};
}

// ---- What an admin may do ----

/** A whole number, or undefined where the field is empty. */
function wholeOf(values, name, label) {
  const text = values[name];
  if (text === '') return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new FieldError(name, `${label} must be a whole number, or empty for no bound.`);
  return Number(text);
}

function quotaOf(values) {
  const bytes = values.datasetBytes === '' ? undefined : format.parseBytes(values.datasetBytes);
  if (Number.isNaN(bytes)) throw new FieldError('datasetBytes', 'Uploads must be a size such as 500 MB or 20 GB, or empty for no bound.');
  const quota = {
    devices: wholeOf(values, 'devices', 'Devices'),
    activeJobs: wholeOf(values, 'activeJobs', 'Active jobs'),
    datasetBytes: bytes === undefined ? undefined : String(bytes),
  };
  return Object.fromEntries(Object.entries(quota).filter(([, value]) => value !== undefined));
}

function quotaFields(quota = {}) {
  return [
    {name: 'devices', label: 'Devices', path: 'tenant.quota.devices', value: quota.devices, digits: true,
      help: 'That its jobs hold at a time; a job beyond it waits. Empty for no bound.'},
    {name: 'activeJobs', label: 'Active jobs', path: 'tenant.quota.active_jobs', value: quota.activeJobs, digits: true,
      help: 'Jobs that have not ended; one more is refused. Empty for no bound.'},
    {name: 'datasetBytes', label: 'Uploads', path: 'tenant.quota.dataset_bytes',
      value: quota.datasetBytes === undefined ? '' : format.exactBytes(quota.datasetBytes),
      help: 'Of data sets and adapters, for example 20 GB; what is beyond it is refused. Empty for no bound.'},
  ];
}

async function createTenant(done) {
  await openForm({
    title: 'New tenant',
    text: 'Jobs and data belong to a tenant and are seen by nobody else but admins.',
    fields: [{name: 'id', label: 'Name', path: 'tenant_id', longest: 40, help: '1 to 40 of a–z, 0–9 and -. It cannot be changed.'}, ...quotaFields()],
    verb: 'Create tenant',
    act: async (values) => {
      await call('AccessService/CreateTenant', {tenantId: values.id, tenant: {quota: quotaOf(values)}});
      announce(`The tenant ${values.id} is made`);
      done();
    },
  });
}

async function changeQuota(tenant, done) {
  const id = format.idOf(tenant.name);
  await openForm({
    title: `Quota of ${id}`,
    text: 'It holds from now on. What runs beyond a smaller one goes on; nothing new starts until there is room.',
    fields: quotaFields(tenant.quota),
    verb: 'Save quota',
    act: async (values) => {
      await call('AccessService/UpdateTenant', {tenant: {name: tenant.name, quota: quotaOf(values)}});
      announce(`The quota of ${id} is changed`);
      done();
    },
  });
}

/** What keeps the service from deleting the tenant, for people; '' for nothing. Throws ApiError. */
async function holdingsOf(tenant) {
  const [jobs, tokens] = await Promise.all([
    call('JobService/ListJobs', {pageSize: 1, filter: `tenant = "${format.idOf(tenant.name)}"`}),
    call('AccessService/ListTokens', {pageSize: 1000, tenant: tenant.name})]);
  const count = (tokens.tokens ?? []).length;
  const bytes = Number(tenant.usage?.datasetBytes ?? 0);
  return [jobs.jobs ? 'jobs' : '', bytes ? `${format.bytes(bytes)} of uploads` : '',
    count ? `${format.count(count)}${tokens.nextPageToken ? ' or more' : ''} ${count === 1 ? 'token' : 'tokens'}` : ''].filter(Boolean).join(', ');
}

async function deleteTenant(tenant, done) {
  const id = format.idOf(tenant.name);
  // Without an answer the question is asked all the same: the service decides.
  const holds = await holdingsOf(tenant).catch(() => null);
  await confirmAction({
    title: `Delete the tenant ${id}?`,
    text: ['Its name and its quota are lost.', holds
      ? `It has ${holds}: the service refuses until those are deleted.`
      : 'The service refuses while a tenant has jobs, data sets or tokens.', holds === '' ? 'This one has none.' : ''],
    verb: 'Delete tenant',
    danger: true,
    act: async () => {
      await call('AccessService/DeleteTenant', {name: tenant.name});
      announce(`The tenant ${id} is deleted`);
      done();
    },
  });
}

// ---- The view ----

function rowOf(tenant, done) {
  const id = format.idOf(tenant.name);
  let shown = tenant;
  const devices = meterOf(`Devices of ${id}`, format.count);
  const jobs = meterOf(`Active jobs of ${id}`, format.count);
  const data = meterOf(`Uploads of ${id}`, format.bytes);
  const made = ageNode('');
  const act = (word, name, run, kind = '') => h('button', {type: 'button', class: `small ${kind}`, 'data-act': word, 'aria-label': name,
    on: {click: () => run(shown, done)}}, word);
  const node = h('tr', {}, h('th', {scope: 'row', class: 'name'}, id),
    h('td', {'data-label': 'Devices'}, devices.node), h('td', {'data-label': 'Active jobs'}, jobs.node),
    h('td', {'data-label': 'Uploaded'}, data.node), h('td', {class: 'num soft', 'data-label': 'Created'}, made),
    h('td', {'data-needs': 'admin'}, h('div', {class: 'row-actions'},
      h('a', {href: `#/jobs?q=${encodeURIComponent(`tenant = "${id}"`)}`, class: 'button small'}, 'Jobs', h('span', {class: 'sr'}, ` of ${id}`)),
      h('a', {href: `#/tokens?tenant=${id}`, class: 'button small'}, 'Tokens', h('span', {class: 'sr'}, ` of ${id}`)),
      act('Quota', `Change the quota of ${id}`, changeQuota),
      id === 'default' ? null : act('Delete', `Delete the tenant ${id}`, deleteTenant, 'danger'))));
  const update = (now) => {
    shown = now;
    const {quota = {}, usage = {}, createTime} = now;
    devices.update(usage.devices ?? 0, quota.devices);
    jobs.update(usage.activeJobs ?? 0, quota.activeJobs);
    data.update(usage.datasetBytes ?? 0, quota.datasetBytes);
    setAge(made, createTime);
  };
  return {node, update};
}

export function openTenants(_, ask) {
  const body = h('tbody');
  const words = [['', 'Tenant'], ['', 'Devices'], ['', 'Active jobs'], ['', 'Uploaded'], ['num', 'Created']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Tenants'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)),
      h('th', {scope: 'col', 'data-needs': 'admin'}, h('span', {class: 'sr'}, 'Actions')))), body);
  const card = h('div', {class: 'card'}, skeleton(4));
  const pager = new Pager({size: PAGE, words: ['Before', 'Next'], onTurn: ask});
  const add = h('button', {type: 'button', class: 'primary', 'data-needs': 'admin', 'data-act': 'New tenant', on: {click: () => createTenant(ask)}}, 'New tenant');
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Tenants'),
    h('p', {class: 'lead'}, 'What each may use at a time, and what it uses now.')), add), card, pager.node);
  const refresh = async () => {
    const page = await pager.ask((fields) => call('AccessService/ListTenants', fields));
    if (!page) return;
    const tenants = page.tenants ?? [];
    if (tenants.length === 0) card.replaceChildren(empty('No tenants', 'An admin makes them.', isAdmin() ? '' : 'tundra admin tenants'));
    else if (card.firstChild !== table) card.replaceChildren(table);
    keyed(body, tenants, (tenant) => tenant.name, (tenant) => rowOf(tenant, ask));
    pager.update(tenants.length, page.nextPageToken);
  };
  const fail = (error) => {
    if (error.code !== 'permission_denied' && error.code !== 'unimplemented' && error.status !== 404) return false;
    card.replaceChildren(empty('Not to be seen here', error.code === 'permission_denied' ? 'Your role does not show tenants.' : 'This service has no tenants.'));
    return true;
  };
  return {node, title: 'Tenants', refresh, fail, everyMs: 4000};
}
