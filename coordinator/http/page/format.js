// Figures, times and sizes for people.

/** A number of an optional field; NaN where there is none. 64-bit integers come as strings. */
export function number(value) {
  return value === undefined || value === null ? NaN : Number(value);
}

/** Four significant digits, exponents where they read better; a dash where there is none. */
export function figure(value, digits = 4) {
  if (Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e6 || size < 1e-4) {
    const [mantissa, exponent] = value.toExponential(digits - 2).split('e');
    return `${Number(mantissa)}e${Number(exponent)}`.replaceAll('-', '−');
  }
  return size >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(digits)));
}

/** A loss: four decimals where they tell something, so that columns of them line up. */
export function loss(value) {
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1000 ? value.toFixed(4) : figure(value);
}

/** 1200 → "1.2k". */
export function short(value) {
  if (!Number.isFinite(value)) return '–';
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

export function count(value) {
  return Number(value ?? 0).toLocaleString('en');
}

export function bytes(value) {
  let size = Number(value ?? 0);
  for (const unit of ['B', 'kB', 'MB', 'GB', 'TB']) {
    if (size < 1000) return `${Number(size.toPrecision(3))} ${unit}`;
    size /= 1000;
  }
  return `${Number(size.toPrecision(3))} PB`;
}

const SIZES = {B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12};

/** Bytes of "20 GB" or "500000"; NaN where it is no size. */
export function parseBytes(text) {
  const [, figure, unit] = /^([\d.]+)\s*([kmgt]?b)?$/i.exec(text.trim()) ?? [];
  const [, factor] = Object.entries(SIZES).find(([name]) => name.toLowerCase() === (unit ?? 'b').toLowerCase());
  const value = Math.round(Number(figure) * factor);
  return Number.isSafeInteger(value) ? value : NaN;
}

/** A size that parseBytes reads as the same number of bytes. */
export function exactBytes(value) {
  const size = Number(value);
  const [unit, factor] = Object.entries(SIZES).findLast(([, one]) => size >= one && size % one === 0) ?? ['B', 1];
  return `${size / factor} ${unit}`;
}

/** "1 h 5 min" of seconds. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ''}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h${s % 3600 >= 60 ? ` ${Math.floor(s % 3600 / 60)} min` : ''}`;
  return `${Math.floor(s / 86400)} d${s % 86400 >= 3600 ? ` ${Math.floor(s % 86400 / 3600)} h` : ''}`;
}

/** Seconds of "12.5s". */
export function seconds(text) {
  return text ? Number.parseFloat(text) : NaN;
}

/** "3 min ago". */
export function age(time, now = Date.now()) {
  const s = (now - Date.parse(time)) / 1000;
  if (Number.isNaN(s)) return '–';
  if (s < 5) return 'just now';
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

/** The time of day; with the date when that is another day. */
export function clock(time, now = new Date()) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return '–';
  const day = at.toDateString() === now.toDateString() ? '' : `${at.toISOString().slice(0, 10)} `;
  return day + at.toTimeString().slice(0, 8);
}

/** The ID of "jobs/ID". */
export function idOf(name) {
  return (name ?? '').split('/').pop();
}

/** The start of an id or a hash. */
export function brief(text, length = 12) {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

/** "learningRate" → "learning_rate", as the job file has it. */
export function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function scalar(value) {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'boolean') return String(value);
  if (/^[A-Z][A-Z0-9_]*$/.test(value)) return value.toLowerCase();
  return /^[\w./-]+$/.test(value) ? value : JSON.stringify(value);
}

/** An object of the API as YAML with the names of the job file. */
export function yaml(value, indent = '') {
  return Object.entries(value).map(([key, item]) => {
    const head = `${indent}${snake(key)}:`;
    if (Array.isArray(item)) {
      if (item.every((one) => typeof one !== 'object' && String(one).length < 30)) return `${head} [${item.map(scalar).join(', ')}]`;
      return `${head}\n${item.map((one) => `${indent}  - ${typeof one === 'object' ? JSON.stringify(one) : scalar(one)}`).join('\n')}`;
    }
    return item !== null && typeof item === 'object' ? `${head}\n${yaml(item, `${indent}  `)}` : `${head} ${scalar(item)}`;
  }).join('\n');
}
