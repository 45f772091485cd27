// The parts of a job's view that are lists: samples, events, files, the spec.
import {call, download} from './api.js';
import {announce, h, keyed, renew, setText} from './dom.js';
import * as format from './format.js';
import {hasEnded} from './states.js';

function answer(word, text, ended) {
  return h('div', {class: text ? 'answer' : 'answer none'}, h('h4', {}, word), text || (ended ? 'None' : 'Not yet'));
}

/** {node, update(job)}: each prompt with what was said before and after training. */
export function samplesOf() {
  const list = h('div', {class: 'card'});
  const node = h('section', {hidden: true}, h('h2', {}, 'Samples'), list);
  const update = (job) => {
    const prompts = job.spec?.eval?.samples ?? [];
    const samples = (job.samples ?? []).length ? job.samples : prompts.map((prompt) => ({prompt}));
    node.hidden = samples.length === 0;
    renew(list, JSON.stringify([samples, hasEnded(job.state)]), () => samples.map((sample) => h('article', {class: 'sample'},
      h('h3', {class: 'prompt'}, sample.prompt),
      h('div', {class: 'pair'}, answer('Before training', sample.before, hasEnded(job.state)),
        answer('After training', sample.after, hasEnded(job.state))))));
  };
  return {node, update};
}

/** {node, refresh()}: what happened, newest first. */
export function eventsOf(job) {
  const list = h('ol', {class: 'card events', tabindex: 0, 'aria-label': 'Events, newest first'});
  const node = h('section', {}, h('h2', {}, 'Events'), list);
  let pages = [];
  const refresh = async () => {
    let pageToken = '';
    const found = [];
    do {
      const page = await call('JobService/ListEvents', {parent: job, pageSize: 1000, ...(pageToken ? {pageToken} : {})});
      found.push(page);
      pageToken = page.nextPageToken ?? '';
    } while (pageToken);
    if (found.length === pages.length && found.every((page, i) => page === pages[i])) return;
    pages = found;
    const events = pages.flatMap((page) => page.events ?? []).reverse();
    keyed(list, events, (event) => event.sequence, (event) => ({
      node: h('li', {}, h('time', {datetime: event.time, title: new Date(event.time).toLocaleString()}, format.clock(event.time)),
        h('span', {class: event.warning ? 'dot warn' : 'dot', role: event.warning ? 'img' : null, 'aria-label': event.warning ? 'Warning' : null}),
        h('span', {}, event.message)),
      update: () => {},
    }));
  };
  return {node, refresh};
}

function fileButtons(adapter) {
  return h('div', {class: 'buttons'}, (adapter?.files ?? []).map((file) => {
    const button = h('button', {type: 'button', class: 'small', title: `${file.filename}, ${format.bytes(file.sizeBytes)}, SHA-256 ${file.sha256}`,
      'aria-label': `Download ${file.filename} of step ${adapter.step ?? 0}`}, `↓ ${file.filename.replace('adapter_', '')}`);
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        await download(adapter.name, file.filename);
        announce(`${file.filename} is downloaded`);
      } catch (error) {
        announce(error.message);
        setText(button, `${button.textContent} failed`);
        button.title = error.message;
      }
      button.disabled = false;
    });
    return button;
  }));
}

function fileRow(title, adapter, fine) {
  const size = (adapter?.files ?? []).reduce((sum, file) => sum + Number(file.sizeBytes ?? 0), 0);
  return h('li', {}, h('div', {}, h('div', {class: 'name'}, title), h('div', {class: 'fine'}, [fine, format.bytes(size)].filter(Boolean).join(', '))), fileButtons(adapter));
}

/** {node, update(job), refresh()}: the adapter and the checkpoints, with their files. */
export function adapterOf(job) {
  const list = h('ul', {class: 'card files'});
  const node = h('section', {}, h('h2', {}, 'Adapter and checkpoints'), list);
  let final = null;
  let page = {};
  const render = () => {
    const checkpoints = page.checkpoints ?? [];
    renew(list, JSON.stringify([final?.name, checkpoints.map((one) => one.name)]), () => [
      final ? fileRow('Final adapter', final, `step ${format.count(final.step)}`) : null,
      ...checkpoints.map((one) => fileRow(`Checkpoint, step ${format.count(one.step)}`, one.adapter, format.clock(one.createTime))),
      !final && checkpoints.length === 0 ? h('li', {class: 'soft'}, 'None yet: the first is kept with the first checkpoint.') : null,
    ]);
  };
  const update = (now) => {
    final = now.adapter ?? null;
    render();
  };
  const refresh = async () => {
    page = await call('ArtifactService/ListCheckpoints', {parent: job});
    render();
  };
  return {node, update, refresh};
}

/** {node, update(job)}: the spec as the job file has it, defaults filled in. */
export function specOf() {
  const text = h('pre', {class: 'card spec', tabindex: 0, 'aria-label': 'Spec'});
  const node = h('section', {}, h('h2', {}, 'Spec'), text);
  return {node, update: (job) => setText(text, format.yaml(job.spec ?? {}))};
}
