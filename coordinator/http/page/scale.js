// From figures to places on a chart, and what is drawn of many figures: pure functions.

/** Three to seven round values within [low, high]. */
export function ticks(low, high, wanted = 5) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const found = [];
  // Adding 0 makes 0 of -0.
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Powers of ten within [low, high], with 2 and 5 between where these are few. */
export function logTicks(low, high) {
  const found = [];
  const factors = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found.length >= 2 ? found : ticks(low, high, 4);
}

/** A function from [low, high] to [from, to]. */
export function scale(low, high, from, to, log = false) {
  const f = log ? Math.log10 : (value) => value;
  const start = f(low);
  const span = f(high) - start || 1;
  return (value) => from + (f(value) - start) / span * (to - from);
}

/** The range of the values that can be drawn, widened a little; null where there are none. */
export function extent(lines, log) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of lines) {
    for (const value of values) {
      if (!Number.isFinite(value) || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return null;
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.06, high * 1.06];
  const pad = low === high ? Math.abs(low) * 0.1 || 1 : 0.05 * (high - low);
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
}

/**
 * Exponential moving average of weight 0 (none) to below 1, corrected for its start: after n values v the weights add
 * up to 1 - weight^n. Values that are not finite are left as gaps.
 */
export function smooth(values, weight) {
  let sum = 0;
  let correction = 1;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    correction *= weight;
    return sum / (1 - correction);
  });
}

/** The first index whose x is `value` or more; xs ascend. */
export function lowerBound(xs, value) {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index whose x is nearest to `value`; -1 without any. */
export function nearest(xs, value) {
  if (xs.length === 0) return -1;
  const after = Math.min(lowerBound(xs, value), xs.length - 1);
  return after > 0 && value - xs[after - 1] <= xs[after] - value ? after - 1 : after;
}

/**
 * The indices from `from` to below `to` that are worth drawing on `columns` pixels: all, or of each column the first,
 * the smallest, the largest and the last, so that no spike is lost.
 */
export function thin(ys, from, to, columns) {
  const n = to - from;
  if (n <= 4 * columns) return Array.from({length: n}, (_, i) => from + i);
  const found = [];
  for (let column = 0; column < columns; column += 1) {
    const start = from + Math.floor(column * n / columns);
    const end = from + Math.floor((column + 1) * n / columns);
    let low = start;
    let high = start;
    for (let i = start; i < end; i += 1) {
      if (ys[i] < ys[low] || Number.isNaN(ys[low])) low = i;
      if (ys[i] > ys[high] || Number.isNaN(ys[high])) high = i;
    }
    for (const i of new Set([start, Math.min(low, high), Math.max(low, high), end - 1])) found.push(i);
  }
  return found;
}

/** The path of the points; a value that cannot be drawn is a gap. */
export function path(xs, ys, indices, toX, toY, log) {
  let text = '';
  let pen = 'M';
  for (const i of indices) {
    if (!Number.isFinite(ys[i]) || (log && ys[i] <= 0)) {
      pen = 'M';
      continue;
    }
    text += `${pen}${toX(xs[i]).toFixed(1)} ${toY(ys[i]).toFixed(1)}`;
    pen = 'L';
  }
  return text;
}
