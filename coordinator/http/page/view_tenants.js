// Tenants, what they may use and what they use.
import {call} from './api.js';
import {empty, h, keyed, setAttributes, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {ageNode, setAge} from './parts.js';

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

function rowOf(tenant) {
  const id = format.idOf(tenant.name);
  const devices = meterOf(`Devices of ${id}`, format.count);
  const jobs = meterOf(`Active jobs of ${id}`, format.count);
  const data = meterOf(`Data sets of ${id}`, format.bytes);
  const made = ageNode('');
  const node = h('tr', {}, h('th', {scope: 'row', class: 'name'}, id),
    h('td', {'data-label': 'Devices'}, devices.node), h('td', {'data-label': 'Active jobs'}, jobs.node),
    h('td', {'data-label': 'Data sets'}, data.node), h('td', {class: 'num soft', 'data-label': 'Created'}, made));
  const update = ({quota = {}, usage = {}, createTime}) => {
    devices.update(usage.devices ?? 0, quota.devices);
    jobs.update(usage.activeJobs ?? 0, quota.activeJobs);
    data.update(usage.datasetBytes ?? 0, quota.datasetBytes);
    setAge(made, createTime);
  };
  return {node, update};
}

export function openTenants() {
  const body = h('tbody');
  const words = [['', 'Tenant'], ['', 'Devices'], ['', 'Active jobs'], ['', 'Data sets'], ['num', 'Created']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Tenants'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)))), body);
  const card = h('div', {class: 'card'}, skeleton(4));
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Tenants'),
    h('p', {class: 'lead'}, 'What each may use at a time, and what it uses now.'))), card);
  const refresh = async () => {
    const tenants = [];
    let pageToken = '';
    do {
      const page = await call('AccessService/ListTenants', {pageSize: 1000, ...(pageToken ? {pageToken} : {})});
      tenants.push(...(page.tenants ?? []));
      pageToken = page.nextPageToken ?? '';
    } while (pageToken);
    if (tenants.length === 0) card.replaceChildren(empty('No tenants', 'An admin makes them.', 'tundra admin tenants'));
    else if (card.firstChild !== table) card.replaceChildren(table);
    keyed(body, tenants, (tenant) => tenant.name, rowOf);
  };
  const fail = (error) => {
    if (error.code !== 'permission_denied' && error.code !== 'unimplemented' && error.status !== 404) return false;
    card.replaceChildren(empty('Not to be seen here', error.code === 'permission_denied' ? 'Your role does not show tenants.' : 'This service has no tenants.'));
    return true;
  };
  return {node, title: 'Tenants', refresh, fail};
}
