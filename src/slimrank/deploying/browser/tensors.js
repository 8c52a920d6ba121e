// Stored tensors as onnxruntime-web takes them, and whether a graph answers the golden rows as at export.
// How near answers must be is the rule of slimrank's runtime/golden.py: 1e-4 of max(1, |x|), and where a graph rounds
// within, 3% of how answers spread.
import { InputError } from "./values.js";

const NEAR = 1e-4, NOISE = 0.03, SPREAD = 0.01, ROWS = 8, NUMBERS = 8;

export const TYPES = {
  bool: Uint8Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
  uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, float32: Float32Array, float64: Float64Array,
};

/** A tensor of the manifest, `{dtype, shape, values}` with the values as text, as a typed array. */
export function stored({ dtype, values }) {
  const read = dtype.endsWith("int64") ? BigInt : Number;
  return TYPES[dtype].from(values.split(" ").filter(Boolean), read);
}

/** Of an output [N, ...] the first 8 rows, and of each at most 8 numbers, evenly spaced. */
export function sampled(data, dims) {
  const rows = dims.length ? dims[0] : 1;
  const width = dims.slice(1).reduce((product, size) => product * size, 1);
  const count = Math.min(NUMBERS, width);
  const step = count > 1 ? (width - 1) / (count - 1) : 0;
  const columns = new Set(Array.from({ length: count }, (_, place) => (place === count - 1 ? width - 1 : Math.floor(place * step))));
  const found = [];
  for (let row = 0; row < Math.min(rows, ROWS); row++) for (const column of columns) found.push(Number(data[row * width + column]));
  return { values: found, width: columns.size };
}

/** Throws unless `run` (feeds to outputs, both by name) answers the golden rows. Says what was found. */
export async function checkGolden({ golden, rounds }, run) {
  if (!Object.keys(golden.inputs).length) return `no golden rows: ${golden.none}`;
  const feeds = Object.fromEntries(Object.entries(golden.inputs).map(([name, each]) => [name, { ...each, data: stored(each) }]));
  const found = await run(feeds, Object.keys(golden.outputs));
  const faults = Object.entries(golden.outputs).map(([name, each]) => difference(name, each, found[name], rounds));
  if (faults.some(Boolean)) throw new InputError(faults.filter(Boolean).join("\n"));
  return "golden rows answered as at export";
}

function difference(name, expected, tensor, rounds) {
  const wanted = Array.from(stored(expected), Number);
  const { values: got, width } = sampled(tensor.data, tensor.dims);
  if (got.length !== wanted.length) return `golden rows: ${name} has ${got.length} numbers, expected ${wanted.length}`;
  const apart = got.map((value, place) => (Number.isFinite(value) ? Math.abs(value - wanted[place]) / Math.max(1, Math.abs(wanted[place])) : Infinity));
  const most = Math.max(0, ...apart);
  if (most <= NEAR) return "";
  if (rounds && most < Infinity) {
    const mean = wanted.reduce((sum, value) => sum + value, 0) / wanted.length;
    const rms = (differences) => Math.sqrt(differences.reduce((sum, value) => sum + value * value, 0) / wanted.length);
    const spread = Math.max(rms(wanted.map((value) => value - mean)), SPREAD);
    if (rms(got.map((value, place) => value - wanted[place])) / spread <= NOISE) return "";
  }
  const place = apart.indexOf(most);
  return `golden row ${Math.floor(place / width)}: ${name} is ${got[place]}, expected ${wanted[place]}`;
}
