// The page of a service: what it serves, a request to try, and how long requests take.
// Whatever comes from the server becomes text nodes, never markup.
import { among, between, counted, milliseconds, quantile } from "./figures.js";

const TOKEN = "slimrank token";
const EVERY = 1000; // milliseconds between two looks at /metrics
const KEPT = 121; // looks: two minutes
const WINDOW = 60; // looks that the figures are of
const STAGES = {
  wait: "for a place", read: "the body", parse: "JSON to values", encode: "raw values to ids",
  queue: "for others' calls", run: "the graph", reply: "answer to JSON",
};
const ROWS_SHOWN = 50, NUMBERS_SHOWN = 8, FIELDS_SHOWN = 10;

const at = (id) => document.getElementById(id);
let model = { name: "", fields: [], candidates: [], answers: "" };
let looks = [];

// --- elements

function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name in found) found[name] = value;
    else found.setAttribute(name, value);
  }
  found.append(...children);
  return found;
}

const cell = (text, kind = "") => make("td", { className: kind }, text);

function row(name, ...cells) {
  return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
}

function bar(share) {
  const filled = make("i");
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", { className: "bar", ariaHidden: "true" }, filled);
}

function say(id, text, bad = false) {
  at(id).textContent = text;
  at(id).className = bad ? "bad" : "";
  at(id).hidden = text === "";
}

const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

// --- the server

class Refused extends Error {}

async function ask(path, body) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const how = body === undefined ? { headers } : { headers, method: "POST", body };
  const response = await fetch(path, how).catch(() => { throw new Error("The service does not answer."); });
  const text = await response.text();
  if (response.status === 401) {
    showAccess(token !== null);
    throw new Refused("The service asks for a token.");
  }
  if (!response.ok) throw new Error(told(text) || `The service answers ${response.status}.`);
  return text;
}

function told(text) {
  try {
    return String(JSON.parse(text).error ?? "");
  } catch {
    return "";
  }
}

const of = (name, path) => `/v2/models/${encodeURIComponent(name)}${path}`;
const json = async (path, body) => JSON.parse(await ask(path, body));

function showAccess(wrong) {
  sessionStorage.removeItem(TOKEN);
  if (at("access").hidden || wrong) say("fault", wrong ? "That is not the token of this service." : "", true);
  if (!at("access").hidden) return;
  at("access").hidden = false;
  at("main").hidden = true;
  at("token").focus();
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value.trim().replace(/[^!-~]/g, "?"));
  at("token").value = "";
  at("access").hidden = true;
  say("fault", "");
  begin();
});

// --- the models

async function begin() {
  try {
    const [server, entries] = await Promise.all([json("/v2"), json("/v2/repository/index", "{}")]);
    at("kind").textContent = `slimrank service ${server.version}`;
    const names = [...new Set(entries.map((each) => each.name))];
    at("models").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    at("choice").hidden = names.length < 2;
    at("main").hidden = false;
    showIndex(entries);
    await choose(names[0]);
    await look();
  } catch (error) {
    if (!(error instanceof Refused)) say("fault", error.message, true);
  }
}

function showIndex(entries) {
  at("index").replaceChildren(...entries.map((each) => {
    const ready = each.state === "READY";
    const state = cell(ready ? "ready" : each.state.toLowerCase(), `words ${ready ? "good" : "bad"}`);
    if (each.reason) state.append(make("small", {}, each.reason));
    return row(each.name, cell(each.version || "–", "words"), state);
  }));
}

async function choose(name) {
  at("title").textContent = name;
  document.title = `${name}: slimrank service`;
  looks = [];
  model = { name, fields: [], candidates: [], answers: "" };
  for (const id of ["ranked", "inferred", "fault"]) say(id, "");
  for (const id of ["found", "outputs", "ends"]) at(id).replaceChildren();
  try {
    const [metadata, schema] = await Promise.all([json(of(name, "")), json(of(name, "/schema"))]);
    if (model.name !== name) return;
    showModel(metadata, schema);
  } catch (error) {
    at("about").textContent = "";
    at("ranking").hidden = at("tensors").hidden = true;
    if (!(error instanceof Refused)) say("fault", error.message, true);
  }
}

function showModel(metadata, schema) {
  const gives = { scores: "scores rows", items: "finds items", vectors: "gives vectors", tensors: "takes tensors" }[schema.answers];
  at("about").textContent = `It ${gives}. Version ${metadata.versions.join(", ")}: ${schema.golden}.`;
  at("ranking").hidden = !["scores", "items"].includes(schema.answers);
  at("tensors").hidden = false;
  at("request").value = tensorsOf(metadata);
  const ends = ["inputs", "outputs"].flatMap((side) => metadata[side].map((each) => [side.slice(0, -1), each]));
  at("ends").replaceChildren(...ends.map(([side, each]) => row(
    each.name, cell(side, "words"), cell(each.datatype, "words"),
    cell(`[${each.shape.map((size) => (size < 0 ? "any" : size)).join(", ")}]`),
  )));
  Object.assign(model, { answers: schema.answers, fields: schema.fields.map((each, place) => ({
    ...each, separated: typeof each.examples[0] === "string", value: asText(each.examples[0]),
    shared: schema.answers === "items" || each.kind === "sequence"
      || (schema.group ? each.name === schema.group : place === 0 && schema.fields.length > 1),
  })) });
  model.candidates = [0, 1, 2].map((place) => model.fields.map(
    (each) => asText(each.examples[place % each.examples.length])));
  showForm();
}

// --- a ranking request

const asText = (value) => (Array.isArray(value) ? value.join(", ") : String(value ?? ""));

function asId(text) {
  return /^(0|-?[1-9]\d{0,14})$/.test(text) ? Number(text) : text;
}

function valueOf(field, text) {
  const trimmed = text.trim();
  if (field.kind === "text" || (field.kind === "sequence" && field.separated)) return text;
  if (field.kind === "sequence") return trimmed.split(",").map((each) => each.trim()).filter(Boolean).map(asId);
  if (trimmed === "") return null;
  if (field.kind === "numeric") return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
  return asId(trimmed);
}

const kindOf = (field) => (field.kind === "sequence" && !field.separated ? "list, with commas" : field.kind);

function showForm() {
  const finds = model.answers === "items";
  at("sides").hidden = finds;
  at("sides").replaceChildren(make("legend", {}, "Shared by all candidates"), ...model.fields.map((field) => make(
    "label", {}, make("input", { type: "checkbox", checked: field.shared, onchange: (event) => {
      field.shared = event.target.checked;
      showValues();
    } }), field.name,
  )));
  at("count").hidden = !finds;
  at("more").hidden = finds;
  at("hint").textContent = finds
    ? "Write what you like: values that the model has not met count as missing."
    : "Values are made up. Write your own, and choose what all candidates share: it is looked up once.";
  showValues();
}

function showValues() {
  at("shared").replaceChildren(...model.fields.filter((field) => field.shared).map((field) => make(
    "label", {}, field.name, " ", make("small", {}, kindOf(field)),
    make("input", { name: field.name, value: field.value, oninput: (event) => { field.value = event.target.value; } }),
  )));
  at("found").replaceChildren();
  say("ranked", "");
  at("candidates").replaceChildren(...(model.answers === "items" ? [] : [candidatesTable()]));
}

function candidatesTable() {
  const own = model.fields.map((field, place) => [field, place]).filter(([field]) => !field.shared);
  const column = (name, kind) => make("th", { scope: "col" }, name, make("small", {}, kind));
  const body = model.candidates.map((values, place) => make("tr", {}, cell(`${place + 1}`),
    ...own.map(([field, index]) => make("td", {}, make("input", {
      value: values[index], ariaLabel: `${field.name} of candidate ${place + 1}`,
      oninput: (event) => { values[index] = event.target.value; },
    }))),
    make("td", { className: "score" }),
    make("td", {}, make("button", { type: "button", className: "drop", ariaLabel: `Leave out candidate ${place + 1}`,
      onclick: () => { model.candidates.splice(place, 1); showValues(); at("more").focus(); } }, "×")),
  ));
  const head = make("tr", {}, make("td"), ...own.map(([field]) => column(field.name, kindOf(field))),
    column("Probability", ""), make("td"));
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "candidates" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

at("more").addEventListener("click", () => {
  const place = model.candidates.length;
  model.candidates.push(model.fields.map((each) => asText(each.examples[place % each.examples.length])));
  showValues();
  [...at("candidates").querySelectorAll("tbody tr:last-child input")].slice(0, 1).forEach((each) => each.focus());
});

at("rank").addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = model;
  at("candidates").querySelectorAll(".score").forEach((each) => each.replaceChildren());
  at("found").replaceChildren();
  const [shared, own] = [true, false].map((side) => asked.fields.map((field, place) => [field, place])
    .filter(([field]) => field.shared === side));
  const request = { shared: Object.fromEntries(shared.map(([field]) => [field.name, valueOf(field, field.value)])) };
  if (asked.answers === "items") request.k = Number(at("k").value) || 1;
  else request.candidates = asked.candidates.map((values) => Object.fromEntries(
    own.map(([field, place]) => [field.name, valueOf(field, values[place])])));
  await timed("ranked", of(asked.name, "/rank"), JSON.stringify(request), (answer, taken) => {
    if (asked !== model) return;
    const strange = Object.entries(answer.unknown).filter(([, count]) => count > 0).map((each) => each.join(" "));
    const unknown = strange.length ? ` Unknown: ${strange.join(", ")}.` : "";
    const scores = answer.probability ?? answer.score;
    say("ranked", `${many(scores.length, "score")} in ${taken}, by version ${answer.model_version}.${unknown}`);
    if (asked.answers === "items") showItems(answer);
    else showScores(scores);
  });
});

function showScores(scores) {
  const best = Math.max(...scores);
  [...at("candidates").querySelectorAll("tbody tr")].forEach((each, place) => {
    each.className = scores[place] === best ? "first" : "";
    each.querySelector(".score").replaceChildren(scores[place].toFixed(4), bar(scores[place]));
  });
}

function showItems(answer) {
  const rows = answer.items.map((item, place) => make("tr", {}, make("th", { scope: "row" }, String(item)),
    cell(answer.score[place].toFixed(4)),
    make("td", { className: "wide" }, bar(among(answer.score, place)))));
  at("found").replaceChildren(make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "items" },
    make("table", {}, make("tbody", {}, ...rows))));
}

async function timed(where, path, body, show) {
  say(where, "");
  const begun = performance.now();
  try {
    const text = await ask(path, body);
    const taken = `${milliseconds(performance.now() - begun)} there and back`;
    show(JSON.parse(text), taken);
  } catch (error) {
    say(where, error.message, true);
  }
}

// --- a request of tensors

function tensorsOf(metadata) {
  const inputs = metadata.inputs.map(({ name, datatype, shape }) => {
    const sizes = shape.map((size) => (size < 0 ? 2 : size));
    const count = sizes.reduce((product, size) => product * size, 1);
    return { name, datatype, shape: sizes, data: Array(Math.min(count, 4096)).fill(datatype === "BOOL" ? false : 0) };
  });
  return `{"inputs": [\n${inputs.map((each) => ` ${JSON.stringify(each)}`).join(",\n")}\n]}`;
}

at("infer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = model;
  at("outputs").replaceChildren();
  await timed("inferred", of(asked.name, "/infer"), at("request").value, (answer, taken) => {
    if (asked !== model) return;
    say("inferred", `${many(answer.outputs.length, "output")} in ${taken}, by version ${answer.model_version}.`);
    at("outputs").replaceChildren(...answer.outputs.map(outputTable));
  });
});

function outputTable({ name, datatype, shape, data }) {
  const rows = shape.length ? shape[0] : 1, width = rows ? data.length / rows : 0;
  const shown = [...Array(Math.min(rows, ROWS_SHOWN)).keys()].map((place) => {
    const own = data.slice(place * width, (place + 1) * width);
    const text = own.slice(0, NUMBERS_SHOWN).map((each) => (typeof each === "number" ? +each.toPrecision(5) : each));
    const cells = [make("td", { className: "words" }, text.join(", ") + (width > NUMBERS_SHOWN ? ", …" : ""))];
    if (width === 1) cells.push(make("td", { className: "wide" }, bar(among(data, place))));
    return row(`${place}`, ...cells);
  });
  const more = rows > ROWS_SHOWN ? `, of which the first ${ROWS_SHOWN} rows` : "";
  return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `output ${name}` },
    make("h3", {}, `${name}: ${datatype} [${shape.join(", ")}]${more}`), make("table", {}, make("tbody", {}, ...shown)));
}

// --- figures of the last minute

async function look() {
  const asked = model.name;
  const text = await ask("/metrics");
  if (asked !== model.name) return;
  const now = counted(text, model.name), last = looks.at(-1);
  if (last && (now.stages.get("")?.count ?? 0) < (last.stages.get("")?.count ?? 0)) looks = []; // it began anew
  looks = [...looks, now].slice(-KEPT);
  showFigures(looks.at(-1 - WINDOW) ?? looks[0], now);
  showSpark();
}

function showFigures(before, now) {
  const whole = between(before, now, ""), seconds = (now.time - before.time) / 1000;
  at("rate").textContent = seconds > 0 ? String(Number((whole.count / seconds).toPrecision(3))) : "–";
  at("p50").textContent = milliseconds(quantile(whole, 0.5));
  at("p99").textContent = milliseconds(quantile(whole, 0.99));
  at("shed").textContent = now.shed.toLocaleString("en");
  at("unknown").textContent = [...now.unknown.values()].reduce((sum, each) => sum + each, 0).toLocaleString("en");
  const fields = [...now.unknown].sort((a, b) => b[1] - a[1]).slice(0, FIELDS_SHOWN).map((each) => each.join(" "));
  at("fields").textContent = fields.length ? `Unknown values, most first: ${fields.join(", ")}.` : "";
  at("since").textContent = whole.count ? `Of ${many(whole.count, "request")} in the last minute.` : "No request in the last minute.";
  const stages = Object.keys(STAGES).map((stage) => [stage, between(before, now, stage)]).filter(([, own]) => own.count);
  at("stages").replaceChildren(...stages.map(([stage, own]) => {
    const line = row(stage, cell(milliseconds(quantile(own, 0.5))), cell(milliseconds(quantile(own, 0.99))),
      cell(milliseconds((own.sum / own.count) * 1000)), make("td", { className: "wide" }, bar(own.sum / (whole.sum || 1))));
    line.firstChild.append(" ", make("small", {}, STAGES[stage]));
    return line;
  }));
}

function showSpark() {
  const points = looks.slice(1).map((each, place) => {
    const own = between(looks[place], each, "");
    return own.count ? [quantile(own, 0.5), quantile(own, 0.99)] : null;
  });
  const known = points.filter(Boolean), most = Math.max(...known.map((each) => each[1]));
  const least = Math.min(...known.map((each) => each[0])) / 2; // a line at the bottom would look like none
  const height = (value) => (88 - (80 * Math.log(value / least)) / Math.log(most / least)).toFixed(1);
  const paths = [["teacher", 1], ["slim", 0]].map(([kind, which]) => {
    let line = "", pen = "M";
    points.forEach((each, place) => {
      const x = 632 - ((points.length - 1 - place) * 624) / (KEPT - 2);
      if (each) line += `${pen}${x.toFixed(1)} ${height(each[which])}${pen === "M" ? "h.1" : ""}`;
      pen = each ? "L" : "M";
    });
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", kind);
    path.setAttribute("d", line);
    return path;
  });
  at("spark").replaceChildren(...paths);
  at("scale").textContent = known.length ? `From ${milliseconds(least)} to ${milliseconds(most)}, logarithmic.` : "";
}

async function watch() {
  if (!document.hidden && !at("main").hidden && at("access").hidden) {
    try {
      await look();
      if (at("fault").dataset.away) say("fault", "");
      delete at("fault").dataset.away;
    } catch (error) {
      if (!(error instanceof Refused)) {
        say("fault", error.message, true);
        at("fault").dataset.away = "yes";
      }
    }
  }
  setTimeout(watch, EVERY);
}

at("models").addEventListener("change", async (event) => {
  await choose(event.target.value);
  await look().catch(() => {});
});
begin().then(watch);
