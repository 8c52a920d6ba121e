// The demo page: pick a user, change what is known of them, and see the ranking move.
// Whatever comes from rows or files becomes text nodes, never markup.
import { loadInWorker } from "./remote.js";
import { parseRows } from "./values.js";

const LISTED = 80; // values of a field that are chosen from a list; with more it is typed
const SHOWN = 20; // candidates of the ranking
const MOVE = 350; // milliseconds
const STAGES = { download: "read and check", runtime: "start the runtime", session: "open the model", golden: "golden rows", ready: "the rest" };

const at = (id) => document.getElementById(id);
const state = { model: null, page: null, user: null, changed: nothing(), before: null, asked: 0 };

/** An object of no keys: a field may be called as one of those that every object has. */
function nothing() {
  return Object.create(null);
}

function make(tag, attributes = {}, ...children) {
  const found = Object.assign(document.createElement(tag), attributes);
  found.append(...children);
  return found;
}

function bytes(count) {
  if (count < 1000) return `${count} B`;
  const [size, unit] = count < 999_500 ? [count / 1e3, "KB"] : [count / 1e6, "MB"];
  return `${size.toPrecision(3)} ${unit}`;
}

const milliseconds = (time) => (time < 1000 ? `${time < 10 ? time.toFixed(1) : Math.round(time)} ms` : `${(time / 1000).toFixed(2)} s`);
const shown = (value) => (Array.isArray(value) ? listed(value) : value === null || value === undefined ? "" : String(value));
const parts = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

/** A list between commas; as JSON where that would be read as another one. */
function listed(value) {
  const text = value.join(", "), own = value.map((each) => String(each ?? ""));
  const same = !text.startsWith("[") && JSON.stringify(parts(text)) === JSON.stringify(own);
  return same ? text : JSON.stringify(value, (_, each) => (typeof each === "bigint" ? String(each) : each));
}

function bar(share) {
  const filled = make("i");
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("div", { className: "bar" }, filled);
}

// --- loading

async function start() {
  at("status").textContent = "Reading the model";
  const provider = new URLSearchParams(location.search).get("on") === "webgpu" ? "webgpu" : "wasm";
  const started = performance.now();
  const [page, model] = await Promise.all([readPage(), loadInWorker("./", { onProgress: tellProgress, executionProviders: [provider] })]);
  Object.assign(state, { page, model });
  describeLoad(performance.now() - started);
  at("loading").hidden = true;
  at("made").hidden = !page.made;
  at("user").replaceChildren(...page.users.map((user, place) => make("option", { value: place }, user.name)));
  at("main").hidden = false;
  await choose(0);
}

async function readPage() {
  const { content: integrity } = document.querySelector("meta[name='page.json']");
  const told = (error) => { throw new Error(`page.json: missing, damaged or of another version (${error.message})`); };
  const response = await fetch("page.json", { integrity, cache: "no-cache" }).catch(told);
  return parseRows(await response.text());
}

function tellProgress({ file, loaded, total }) {
  at("progress").value = total ? loaded / total : 0;
  at("amount").textContent = `${bytes(loaded)} of ${bytes(total)}`;
  at("status").textContent = loaded < total ? `Reading ${file}` : "Starting the runtime";
}

function describeLoad(time) {
  const { files, notes, milliseconds: stages, provider } = state.model.info;
  const own = files.filter(({ name }) => name.startsWith("model.onnx") || name === "encoding.json");
  const sum = (of, key) => of.reduce((total, each) => total + each[key], 0);
  at("tile-model").textContent = bytes(sum(own, "bytes"));
  at("tile-wire").textContent = sum(files, "wire") ? bytes(sum(files, "wire")) : "nothing";
  at("tile-model-wire").textContent = own.every(({ cached }) => cached) ? "kept in this browser" : `${bytes(sum(own, "wire"))} over the network`;
  const runtime = files.filter(({ name }) => name.startsWith("ort/"));
  at("tile-wire-more").textContent = sum(runtime, "wire") ? `${bytes(sum(runtime, "wire"))} of it the runtime` : "kept in this browser";
  at("tile-load").textContent = milliseconds(time);
  const most = Math.max(...files.map((each) => each.bytes));
  at("files").replaceChildren(...[...files].sort((a, b) => b.bytes - a.bytes).map((each) => make("tr", {},
    make("th", { scope: "row" }, each.name),
    make("td", {}, bytes(each.bytes)),
    make("td", {}, each.cached ? "kept here" : bytes(each.wire)),
    make("td", { className: "share" }, bar(each.bytes / most)),
  )));
  at("stages").replaceChildren(...Object.entries(STAGES).map(([key, name]) => make("div", {}, make("dt", {}, name), make("dd", {}, milliseconds(stages[key])))));
  at("notes").textContent = notes.map((note) => `${note}.`).join(" ");
  at("provider").value = provider;
  at("provider").lastElementChild.disabled = !navigator.gpu;
}

// --- who asks

async function choose(place) {
  Object.assign(state, { user: state.page.users[place], changed: nothing(), before: null });
  at("user").value = place;
  const names = state.page.shared;
  const fields = new Map(state.model.info.fields.map((each) => [each.name, each]));
  const lists = await Promise.all(names.map((name) => state.model.values(name, LISTED + 1)));
  at("fields").replaceChildren(...names.map((name, index) => control(fields.get(name), state.user.shared[name], lists[index])));
  await rank();
}

/** A field's label and input: a list where its values are few, else text or a number. */
function control(field, value, values) {
  const known = values.length && values.length <= LISTED && field.kind === "categorical";
  const input = known ? choices(value, values) : make("input", { type: "text", value: shown(value), autocomplete: "off", spellcheck: false });
  if (field.kind === "numeric") Object.assign(input, { type: "number", step: "any" });
  input.dataset.field = field.name;
  const label = make("label", {}, field.name, input, make("small"));
  input.addEventListener("input", () => change(field, input.value, value, label).catch(fail));
  return label;
}

function choices(value, values) {
  const all = [...new Set([shown(value), ...values.map(shown)])].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const found = make("select", {}, ...all.map((each) => make("option", { value: each }, each || "(missing)")));
  found.value = shown(value);
  return found;
}

async function change(field, text, value, label) {
  if (text === shown(value)) delete state.changed[field.name];
  else state.changed[field.name] = typed(field, text);
  label.classList.toggle("changed", field.name in state.changed);
  await rank();
}

/** What was typed as a value of a field: nothing is a missing value, and a list stands between commas or is JSON. */
function typed(field, text) {
  if (text === "") return null;
  if (field.kind === "numeric") return Number(text);
  if (field.kind === "sequence" && !field.separator) return text.startsWith("[") ? parseRows(text) : parts(text);
  return text;
}

// --- the ranking

async function rank() {
  const asked = ++state.asked, started = performance.now();
  const { user, page, changed } = state;
  const shared = { ...user.shared, ...changed };
  let answer;
  try {
    answer = page.finds ? await found(shared) : await scored(shared, user.candidates);
    at("fault").hidden = true;
  } catch (error) {
    if (asked === state.asked) fail(error);
    return;
  }
  if (asked !== state.asked) return; // a later change was asked meanwhile
  at("tile-score-name").textContent = page.finds ? "last search" : `${user.candidates.length} candidates`;
  at("tile-score").textContent = milliseconds(performance.now() - started);
  tellFields(answer.unknown);
  show(answer.ranked);
}

async function scored(shared, candidates) {
  const { ranked, unknown } = await state.model.topK({ shared, candidates: candidates.map(({ row }) => row) }, Math.max(candidates.length, 1));
  return { unknown, ranked: ranked.map(({ index, score }) => ({ key: index, title: titleOf(candidates[index]), label: candidates[index].label, score, share: score, text: `${(100 * score).toFixed(1)}%` })) };
}

async function found(query) {
  const { found: [{ items, scores }], unknown } = await state.model.topK([query], SHOWN);
  const [most, least] = [scores[0], scores.at(-1)];
  return { unknown, ranked: items.map((item, place) => ({ key: String(item), title: shown(item), score: scores[place], share: 0.1 + 0.9 * (scores[place] - least) / (most - least || 1), text: scores[place].toPrecision(3) })) };
}

const titleOf = ({ title, row }) => title ?? Object.values(row).map(shown).join(" · ");

/** Beside each field what the model does not know of it, and what it was before. */
function tellFields(unknown) {
  for (const input of document.querySelectorAll("#fields [data-field]")) {
    const name = input.dataset.field;
    const told = [unknown[name] ? "unknown to the model" : "", name in state.changed ? `was ${shown(state.user.shared[name]) || "missing"}` : ""];
    input.parentElement.querySelector("small").textContent = told.filter(Boolean).join(", ");
  }
}

function show(ranked) {
  const places = new Map(ranked.map(({ key }, place) => [key, place]));
  state.before ??= places;
  const changed = Object.keys(state.changed).length > 0;
  const moved = ranked.filter(({ key }, place) => state.before.get(key) !== place).length;
  at("moved").textContent = changed ? `${moved} of ${ranked.length} moved` : "";
  at("reset").disabled = !changed;
  const tops = new Map(Array.from(at("ranking").children, (each) => [each.dataset.key, each.getBoundingClientRect().top]));
  at("ranking").replaceChildren(...ranked.slice(0, SHOWN).map((each, place) => entry(each, place)));
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const each of at("ranking").children) {
    const way = (tops.get(each.dataset.key) ?? NaN) - each.getBoundingClientRect().top;
    if (way) each.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], { duration: MOVE, easing: "ease-out" });
  }
}

function entry({ key, title, label, share, text }, place) {
  const rose = state.before.has(key) ? state.before.get(key) - place : null;
  const move = rose === null ? "new" : rose > 0 ? `▲ ${rose}` : rose < 0 ? `▼ ${-rose}` : "";
  const name = make("span", { className: "title", title }, make("span", {}, title));
  if (label === 1) name.append(make("b", {}, "liked"));
  const found = make("li", {},
    make("span", { className: "place" }, `${place + 1}`),
    name,
    make("span", { className: `move ${rose === null || rose > 0 ? "up" : "down"}` }, move),
    make("span", { className: "score" }, text),
    bar(share),
  );
  found.dataset.key = key;
  return found;
}

function fail(error) {
  at("fault").textContent = error.message;
  at("fault").hidden = false;
  if (!state.model) at("loading").hidden = true;
}

at("user").addEventListener("change", ({ target }) => choose(Number(target.value)).catch(fail));
at("reset").addEventListener("click", () => choose(Number(at("user").value)).catch(fail));
at("provider").addEventListener("change", ({ target }) => { location.search = target.value === "webgpu" ? "?on=webgpu" : ""; });
start().catch(fail);
