// Data sets: what was uploaded, how large it is, and a way to be rid of it.
import {call} from './api.js';
import {confirmAction} from './dialogs.js';
import {announce, empty, h, keyed, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {ageNode, setAge} from './parts.js';

const PAGE = 50;

async function deleteDataset(dataset, done) {
  await confirmAction({
    title: `Delete ${dataset.displayName}?`,
    text: [`${format.bytes(dataset.sizeBytes)} of rows are lost. Jobs that were trained on them stay, with their adapters.`,
      'The service refuses while a job that has not ended uses it.'],
    verb: 'Delete data set',
    danger: true,
    act: async () => {
      await call('DatasetService/DeleteDataset', {name: dataset.name});
      announce(`${dataset.displayName} is deleted`);
      done();
    },
  });
}

function rowOf(dataset, done) {
  const made = ageNode('');
  setAge(made, dataset.createTime);
  const origin = h('div', {class: 'fine'}, dataset.name, h('span', {'data-needs': 'admin'}, ` · ${format.idOf(dataset.tenant)}`));
  const node = h('tr', {}, h('th', {scope: 'row'}, h('span', {class: 'name'}, dataset.displayName), origin),
    h('td', {class: 'num', 'data-label': 'Size'}, h('span', {}, format.bytes(dataset.sizeBytes))),
    h('td', {'data-label': 'SHA-256', class: 'soft'}, h('code', {title: dataset.sha256}, format.brief(dataset.sha256 ?? ''))),
    h('td', {class: 'num soft', 'data-label': 'Uploaded'}, made),
    h('td', {'data-needs': 'user'}, h('div', {class: 'row-actions'}, h('button', {type: 'button', class: 'small danger', 'data-act': 'Delete',
      'aria-label': `Delete ${dataset.displayName}`, on: {click: () => deleteDataset(dataset, done)}}, 'Delete'))));
  return {node, update: () => {}};
}

export function openData(_, ask) {
  const body = h('tbody');
  const words = [['', 'Data set'], ['num', 'Size'], ['', 'SHA-256'], ['num', 'Uploaded']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Data sets, newest first'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)),
      h('th', {scope: 'col', 'data-needs': 'user'}, h('span', {class: 'sr'}, 'Actions')))), body);
  const card = h('div', {class: 'card'}, skeleton(4));
  const pager = new Pager({size: PAGE, onTurn: ask});
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Data sets'),
    h('p', {class: 'lead'}, 'Files of rows that jobs train on and are validated with. They stay until they are deleted.'))), card, pager.node);
  const refresh = async () => {
    const page = await pager.ask((fields) => call('DatasetService/ListDatasets', fields));
    if (!page) return;
    const datasets = page.datasets ?? [];
    if (datasets.length === 0) card.replaceChildren(empty('No data yet', 'Submitting a job uploads its files.', 'tundra submit job.yaml'));
    else if (card.firstChild !== table) card.replaceChildren(table);
    keyed(body, datasets, (dataset) => dataset.name, (dataset) => rowOf(dataset, ask));
    pager.update(datasets.length, page.nextPageToken);
  };
  return {node, title: 'Data sets', refresh, everyMs: 4000};
}
