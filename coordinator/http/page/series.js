// The figures of a job's steps, as columns that grow: each time only what is new is asked for.
import {call} from './api.js';
import * as format from './format.js';

const BULK = 10000;

const COLUMNS = {
  step: (m) => Number(m.step ?? 0),
  train: (m) => format.number(m.trainLoss),
  validation: (m) => format.number(m.validationLoss),
  rate: (m) => (m.step ? Number(m.learningRate ?? 0) : NaN),
  norm: (m) => (m.step ? Number(m.gradNorm ?? 0) : NaN),
  speed: (m) => (m.stepSeconds > 0 ? Number(m.tokens ?? 0) / Number(m.stepSeconds) : NaN),
};

/** What `method` lists of a job behind a sequence number, page by page: take(items) for each that has some. */
export async function follow(method, field, parent, after, take) {
  for (;;) {
    const page = await call(method, {parent, pageSize: BULK, ...(after === '0' ? {} : {afterSequence: after})}, {once: true});
    const items = page[field] ?? [];
    if (items.length === 0) return;
    after = items.at(-1).sequence;
    take(items, after);
    if (!page.nextPageToken) return;
  }
}

export class Series {
  constructor(job) {
    this.job = job;
    this.columns = Object.fromEntries(Object.keys(COLUMNS).map((name) => [name, []]));
    /** Grows whenever the columns change. */
    this.version = 0;
    this.after = '0';
  }

  get length() {
    return this.columns.step.length;
  }

  /** Takes in what is new. Throws ApiError. */
  async refresh() {
    await follow('JobService/ListMetrics', 'metrics', this.job, this.after, (rows, last) => {
      this.after = last;
      for (const [name, read] of Object.entries(COLUMNS)) {
        const column = this.columns[name];
        for (const row of rows) column.push(read(row));
      }
      this.version += 1;
    });
  }

  /** {xs, ys} of a column where it has values. */
  line(name) {
    const xs = [];
    const ys = [];
    this.columns[name].forEach((value, i) => {
      if (Number.isNaN(value)) return;
      xs.push(this.columns.step[i]);
      ys.push(value);
    });
    return {xs, ys};
  }

  /** All columns as CSV, with the API's names. */
  csv() {
    const names = {step: 'step', train: 'train_loss', validation: 'validation_loss', rate: 'learning_rate', norm: 'grad_norm', speed: 'tokens_per_second'};
    const rows = this.columns.step.map((_, i) => Object.keys(names).map((name) => {
      const value = this.columns[name][i];
      return Number.isNaN(value) ? '' : String(value);
    }).join(','));
    return `${Object.values(names).join(',')}\n${rows.join('\n')}\n`;
  }
}
