// Figures of a model from /metrics, Prometheus' text format, and how figures are told.

function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const parts = /^slimrank_(\w+?)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, key, value] of (parts[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    found.push({ name: parts[1], labels, value: Number(parts[3]) });
  }
  return found;
}

// What was counted until now: by stage ("" for the whole request) counts below each step, their number and their sum.
export function counted(text, model) {
  const found = { time: performance.now(), stages: new Map(), shed: 0, unknown: new Map() };
  for (const { name, labels, value } of samples(text)) {
    if (name === "shed_total") found.shed += value;
    if (labels.model !== model) continue;
    if (name === "unknown_values_total") found.unknown.set(labels.field, (found.unknown.get(labels.field) ?? 0) + value);
    const [, kind, part] = /^(stage|request)_seconds_(bucket|sum|count)$/.exec(name) ?? [];
    if (!kind) continue;
    const stage = kind === "request" ? "" : labels.stage;
    if (!found.stages.has(stage)) found.stages.set(stage, { sum: 0, count: 0, steps: new Map() });
    const own = found.stages.get(stage);
    if (part !== "bucket") {
      own[part] += value;
      continue;
    }
    const step = labels.le === "+Inf" ? Infinity : Number(labels.le);
    own.steps.set(step, (own.steps.get(step) ?? 0) + value);
  }
  return found;
}

// What a stage did between two looks.
export function between(before, after, stage) {
  const now = after.stages.get(stage), then = before.stages.get(stage);
  if (!now) return { count: 0, sum: 0, steps: [] };
  const steps = [...now.steps].map(([step, count]) => [step, count - (then?.steps.get(step) ?? 0)]);
  return {
    count: now.count - (then?.count ?? 0), sum: now.sum - (then?.sum ?? 0), steps: steps.sort((a, b) => a[0] - b[0]),
  };
}

// In milliseconds; within a step as if all of it were equally likely, as Prometheus does it.
export function quantile({ count, steps }, share) {
  let low = 0, below = 0;
  for (const [step, upTo] of steps) {
    if (upTo >= share * count && upTo > below) {
      if (!Number.isFinite(step)) return low * 1000;
      return (low + ((step - low) * (share * count - below)) / (upTo - below)) * 1000;
    }
    [low, below] = [step, upTo];
  }
  return NaN;
}

// Where one of some numbers lies between the least and the greatest, as a bar that is always seen.
export function among(numbers, place) {
  const least = numbers.reduce((low, each) => Math.min(low, each), Infinity);
  const most = numbers.reduce((high, each) => Math.max(high, each), -Infinity);
  return most > least ? 0.04 + (0.96 * (numbers[place] - least)) / (most - least) : 1;
}

export function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value >= 1000) return `${Number((value / 1000).toPrecision(3))} s`;
  return value < 1 ? `${Math.round(value * 1000)} µs` : `${Number(value.toPrecision(3))} ms`;
}
