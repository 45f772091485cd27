// What the charts of one view share: the part of the steps that is shown, the cursor, the scale and the smoothing.
import {h, setText} from './dom.js';

export class ChartGroup {
  constructor() {
    this.charts = new Set();
    /** [first, last] step shown; null for all. */
    this.zoom = null;
    /** Step under the cursor; null for none. */
    this.cursor = null;
    this.log = false;
    this.smoothing = 0;
    this.planned = false;
    this.onZoom = () => {};
  }

  /** Draws all charts with the next frame. */
  draw() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      for (const chart of this.charts) chart.draw();
    });
  }

  setZoom(zoom) {
    this.zoom = zoom;
    this.onZoom(zoom);
    this.draw();
  }

  setCursor(step) {
    if (step === this.cursor) return;
    this.cursor = step;
    for (const chart of this.charts) chart.drawCursor();
  }

  /** The row of controls: scale, smoothing, and back from a zoom. */
  controls() {
    const log = h('input', {type: 'checkbox'});
    log.addEventListener('change', () => {
      this.log = log.checked;
      this.draw();
    });
    const out = h('output', {}, '0');
    const range = h('input', {type: 'range', min: 0, max: 0.99, step: 0.01, value: 0});
    range.addEventListener('input', () => {
      this.smoothing = Number(range.value);
      setText(out, this.smoothing.toFixed(2).replace(/\.?0+$/, '') || '0');
      this.draw();
    });
    const reset = h('button', {type: 'button', class: 'small', disabled: true}, 'Reset zoom');
    reset.addEventListener('click', () => this.setZoom(null));
    this.onZoom = (zoom) => {
      reset.disabled = zoom === null;
    };
    return h('div', {class: 'bar-row'},
      h('label', {class: 'inline'}, log, 'Logarithmic'),
      h('label', {class: 'inline'}, 'Smoothing', range, out), h('span', {class: 'grow'}),
      h('span', {class: 'fine'}, 'Drag to zoom'), reset);
  }
}
