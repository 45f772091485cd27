// What trains: workers with their devices, the groups that they form, the bases that these hold.
import {call} from './api.js';
import {confirmAction} from './dialogs.js';
import {announce, empty, h, keyed, renew, setAttributes, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {ageNode, jobLink, setAge} from './parts.js';
import {workerBadge} from './states.js';

async function listAll(method, field) {
  const all = [];
  let pageToken = '';
  do {
    const page = await call(method, {pageSize: 1000, ...(pageToken ? {pageToken} : {})});
    all.push(...(page[field] ?? []));
    pageToken = page.nextPageToken ?? '';
  } while (pageToken);
  return all;
}

function tableOf(caption, words, body) {
  return h('table', {class: 'cards'}, h('caption', {class: 'sr'}, caption),
    h('thead', {}, h('tr', {}, words.map((word) => (word === 'Actions'
      ? h('th', {scope: 'col', 'data-needs': 'admin'}, h('span', {class: 'sr'}, word)) : h('th', {scope: 'col'}, word))))), body);
}

/** "4 × NVIDIA H100, 80 GB": the kinds of devices that a worker has. */
function kindsOf(devices) {
  const kinds = new Map();
  for (const device of devices) {
    const kind = `${device.displayName || device.kind}${device.memoryBytes ? `, ${format.bytes(device.memoryBytes)}` : ''}`;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds].map(([kind, n]) => (n > 1 ? `${n} × ${kind}` : kind)).join('; ');
}

/** Takes a worker's work away, or lets it work again. */
async function setDrained(worker, done) {
  const name = worker.displayName || format.idOf(worker.name);
  const draining = !worker.drained;
  await confirmAction({
    title: draining ? `Drain ${name}?` : `Let ${name} work again?`,
    text: draining ? 'It is given no new work; its jobs are saved and go on elsewhere, if there is room. It stays drained, over restarts too, until it is let work again.'
      : 'It is given jobs and prompts from now on.',
    verb: draining ? 'Drain worker' : 'Undrain worker',
    danger: draining,
    act: async () => {
      await call(`FleetService/${draining ? 'DrainWorker' : 'UndrainWorker'}`, {name: worker.name});
      announce(`${name} ${draining ? 'is drained' : 'may work again'}`);
      done();
    },
  });
}

function workerRow(worker, names, done) {
  let shown = worker;
  const badge = workerBadge();
  const devices = h('div', {class: 'devices'});
  const kinds = h('div', {class: 'fine'});
  const bases = h('span');
  const build = h('span');
  const drained = h('div', {class: 'fine'}, 'drained by an admin');
  const seen = ageNode('');
  const title = h('span', {class: 'name'});
  const drain = h('button', {type: 'button', class: 'small', on: {click: () => setDrained(shown, done)}});
  const node = h('tr', {}, h('th', {scope: 'row'}, title, h('div', {class: 'fine'}, format.idOf(worker.name))),
    h('td', {'data-label': 'State'}, h('div', {}, badge.node, drained)),
    h('td', {'data-label': 'Devices'}, h('div', {}, devices, kinds)),
    h('td', {'data-label': 'Bases'}, bases), h('td', {class: 'soft', 'data-label': 'Build'}, build),
    h('td', {class: 'soft', 'data-label': 'Last report'}, seen),
    h('td', {'data-needs': 'admin'}, h('div', {class: 'row-actions'}, drain)));
  const update = (now) => {
    shown = now;
    const verb = now.drained ? 'Undrain' : 'Drain';
    setText(drain, verb);
    setAttributes(drain, {'data-act': verb, 'aria-label': `${verb} ${now.displayName || format.idOf(now.name)}`});
    setText(title, now.displayName || format.idOf(now.name));
    badge.update(now.state);
    drained.hidden = !now.drained;
    const list = now.devices ?? [];
    renew(devices, JSON.stringify(list.map((d) => d.group ?? '')), () => list.map((device) =>
      h('span', {class: device.group ? 'device busy' : 'device', title: device.numericsClass},
        `${device.kind} ${device.index ?? 0}: ${device.group ? format.brief(format.idOf(device.group), 14) : 'free'}`)));
    setText(kinds, kindsOf(list));
    setText(bases, (now.bases ?? []).map((base) => names.get(base) ?? format.brief(format.idOf(base))).join(', ') || '–');
    setText(build, now.build || '–');
    setAge(seen, now.lastSeenTime);
  };
  return {node, update};
}

function groupRow(group, names) {
  const base = h('span');
  const shape = h('span');
  const job = h('span');
  const ranks = h('div', {class: 'devices'});
  const resident = h('span');
  const node = h('tr', {}, h('th', {scope: 'row'}, h('span', {class: 'name', title: group.name}, format.brief(format.idOf(group.name), 16))),
    h('td', {'data-label': 'Base'}, base), h('td', {'data-label': 'Shape'}, shape), h('td', {'data-label': 'Job'}, job),
    h('td', {'data-label': 'Ranks'}, ranks), h('td', {'data-label': 'Resident'}, resident));
  const update = (now) => {
    const list = now.ranks ?? [];
    setText(base, `${names.get(now.base) ?? format.brief(format.idOf(now.base))}, ${(now.precision ?? 'F32').toLowerCase()}`);
    setText(shape, `${list.length / (now.shards || 1)} × ${now.shards || 1}, epoch ${now.epoch ?? 0}`);
    shape.title = 'replicas × shards';
    renew(job, now.job ?? (now.busy ? 'busy' : ''), () => (now.job ? jobLink(now.job) : h('span', {class: 'soft'}, now.busy ? 'of another tenant' : 'idle, base warm')));
    renew(ranks, JSON.stringify(list.map((r) => r.phase ?? '')), () => list.map((rank, i) =>
      h('span', {class: rank.phase === 'ready' ? 'device busy' : 'device', title: `${rank.worker} device ${rank.deviceIndex ?? 0}`},
        `${i}: ${(rank.phase || 'not yet').replaceAll('_', ' ')}`)));
    setText(resident, format.bytes(list.reduce((sum, rank) => sum + Number(rank.residentBytes ?? 0), 0)));
  };
  return {node, update};
}

function baseRow(base, residentOf) {
  const workers = h('span');
  const resident = h('span');
  const node = h('tr', {}, h('th', {scope: 'row'}, h('span', {class: 'name'}, base.displayName), h('div', {class: 'fine', title: base.name}, format.brief(format.idOf(base.name)))),
    h('td', {'data-label': 'Architecture'}, h('span', {}, base.architecture || '–')),
    h('td', {'data-label': 'Size'}, h('span', {}, `${format.short(Number(base.parameters ?? 0))} parameters, ${format.bytes(base.sizeBytes)} ${(base.dtype ?? '').toLowerCase()}`)),
    h('td', {'data-label': 'Longest row'}, h('span', {}, `${format.count(base.maxSeqLength)} tokens`)),
    h('td', {'data-label': 'Workers'}, workers), h('td', {'data-label': 'In memory'}, resident));
  const update = (now) => {
    setText(workers, now.workerCount ? `${format.count(now.workerCount)} connected` : 'none connected');
    const held = residentOf(now.name);
    setText(resident, held ? format.bytes(held) : '–');
  };
  return {node, update};
}

function tile(word) {
  const figure = h('dd', {}, '–');
  return {node: h('div', {class: 'tile card pad'}, h('dt', {}, word), figure), figure};
}

export function openFleet(ask) {
  const tiles = ['Workers connected', 'Devices in groups', 'Groups', 'Bases in memory'].map(tile);
  const parts = [
    ['Workers', ['Worker', 'State', 'Devices', 'Bases', 'Build', 'Last report', 'Actions'], 'No workers', 'No worker has connected yet.', 'tundra-worker --coordinator HOST:7700 --base-dir DIR'],
    ['Groups', ['Group', 'Base', 'Shape', 'Job', 'Ranks', 'Resident'], 'No groups', 'Devices form a group when a job or a prompt needs one.'],
    ['Bases', ['Base', 'Architecture', 'Size', 'Longest row', 'Workers', 'In memory'], 'No bases', 'Workers bring the bases that lie beneath their --base-dir.'],
  ].map(([title, words, ...none]) => {
    const body = h('tbody');
    return {title, body, none, table: tableOf(title, words, body), card: h('div', {class: 'card scroll'}, skeleton(3))};
  });
  const node = h('div', {}, h('div', {class: 'head'}, h('h1', {}, 'Fleet')), h('dl', {class: 'tiles'}, tiles.map((t) => t.node)),
    parts.map((part) => h('section', {}, h('h2', {}, part.title), part.card)));
  const fillPart = (part, items, make) => {
    if (items.length === 0) part.card.replaceChildren(empty(...part.none));
    else if (part.card.firstChild !== part.table) part.card.replaceChildren(part.table);
    keyed(part.body, items, (item) => item.name, make);
  };
  // What rows of earlier answers look up too.
  const names = new Map();
  const held = new Map();
  const refresh = async () => {
    const [workers, groups, bases] = await Promise.all([listAll('FleetService/ListWorkers', 'workers'),
      listAll('FleetService/ListGroups', 'groups'), listAll('BaseService/ListBases', 'bases')]);
    for (const base of bases) names.set(base.name, base.displayName);
    held.clear();
    for (const group of groups) {
      for (const rank of group.ranks ?? []) held.set(group.base, (held.get(group.base) ?? 0) + Number(rank.residentBytes ?? 0));
    }
    const devices = workers.filter((w) => w.state !== 'AWAY').flatMap((w) => w.devices ?? []);
    setText(tiles[0].figure, `${workers.filter((w) => w.state === 'CONNECTED').length} of ${workers.length}`);
    setText(tiles[1].figure, `${devices.filter((d) => d.group).length} of ${devices.length}`);
    setText(tiles[2].figure, String(groups.length));
    setText(tiles[3].figure, format.bytes([...held.values()].reduce((sum, n) => sum + n, 0)));
    fillPart(parts[0], workers, (worker) => workerRow(worker, names, ask));
    fillPart(parts[1], groups, (group) => groupRow(group, names));
    fillPart(parts[2], bases, (base) => baseRow(base, (name) => held.get(name)));
  };
  return {node, title: 'Fleet', refresh};
}
