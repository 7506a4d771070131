// The Prometheus text of /metrics, read in the browser: samples, rates between two readings, quantiles of histograms.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** [{name, labels, value}] */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const parts = line.startsWith("#") ? null : LINE.exec(line);
    if (!parts) continue;
    const labels = Object.fromEntries([...(parts[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one))]));
    samples.push({ name: parts[1], labels, value: parts[3] === "+Inf" ? Infinity : Number(parts[3]) });
  }
  return samples;
}

export class Reading {
  constructor(text, at) {
    this.at = at; // ms
    this.byName = Map.groupBy(parse(text), ({ name }) => name);
  }

  samples(name, where = () => true) {
    return (this.byName.get(name) ?? []).filter(({ labels }) => where(labels));
  }

  sum(name, where) {
    return this.samples(name, where).reduce((all, { value }) => all + value, 0);
  }

  /** The largest of the workers' gauges; undefined where there is none. */
  gauge(name) {
    const values = this.samples(name).map(({ value }) => value);
    return values.length ? Math.max(...values) : undefined;
  }

  values(name, label) {
    return [...new Set(this.samples(name).map(({ labels }) => labels[label]))];
  }
}

/** What a counter grew by; a counter that was reset counts from 0. */
export function growth(before, now, name, where) {
  const old = before ? before.sum(name, where) : 0;
  const fresh = now.sum(name, where);
  return fresh >= old ? fresh - old : fresh;
}

/** A quantile, in the histogram's unit, of what was observed between two readings; NaN of nothing. */
export function quantile(before, now, name, share, where = () => true) {
  const bounds = new Map();
  const collect = (reading, sign) => {
    for (const { labels, value } of reading?.samples(`${name}_bucket`, where) ?? []) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      bounds.set(bound, (bounds.get(bound) ?? 0) + sign * value);
    }
  };
  collect(now, 1);
  collect(before, -1);
  const sorted = [...bounds].sort(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (total <= 0) return NaN;
  let [low, below] = [0, 0];
  for (const [bound, count] of sorted) {
    if (count >= share * total) {
      if (bound === Infinity) return low;
      return count === below ? bound : low + ((share * total - below) / (count - below)) * (bound - low);
    }
    [low, below] = [bound, count];
  }
  return low;
}

export const mean = (before, now, name, where) => growth(before, now, `${name}_sum`, where) / growth(before, now, `${name}_count`, where);
