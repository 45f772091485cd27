// The figures of a job's steps, as columns that grow: only the last page is asked for again, and an unchanged one costs
// a tag.
import {call} from './api.js';
import * as format from './format.js';

const BULK = 10000;
const TAIL = 1000;

const COLUMNS = {
  step: (m) => Number(m.step ?? 0),
  train: (m) => format.number(m.trainLoss),
  validation: (m) => format.number(m.validationLoss),
  rate: (m) => (m.step ? Number(m.learningRate ?? 0) : NaN),
  norm: (m) => (m.step ? Number(m.gradNorm ?? 0) : NaN),
  speed: (m) => (m.stepSeconds > 0 ? Number(m.tokens ?? 0) / Number(m.stepSeconds) : NaN),
};

export class Series {
  constructor(job) {
    this.job = job;
    this.columns = Object.fromEntries(Object.keys(COLUMNS).map((name) => [name, []]));
    /** Grows whenever the columns change. */
    this.version = 0;
    this.token = '';
    this.before = 0;
    this.tail = BULK;
    this.page = null;
  }

  get length() {
    return this.columns.step.length;
  }

  /** Takes in what is new. Throws ApiError. */
  async refresh() {
    for (;;) {
      const pageSize = Math.min(BULK, Math.max(TAIL, Math.floor(this.tail / TAIL) * TAIL));
      const page = await call('JobService/ListMetrics',
        {parent: this.job, pageSize, ...(this.token ? {pageToken: this.token} : {})});
      if (page !== this.page) this.take(page);
      this.page = page;
      if (!page.nextPageToken) {
        this.tail = this.length - this.before;
        return;
      }
      this.before = this.length;
      this.token = page.nextPageToken;
      this.tail = BULK;
    }
  }

  take(page) {
    const rows = page.metrics ?? [];
    for (const [name, read] of Object.entries(COLUMNS)) {
      const column = this.columns[name];
      column.length = this.before;
      for (const row of rows) column.push(read(row));
    }
    this.version += 1;
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
}
