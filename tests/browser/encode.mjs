// Encodes rows by records of encoding.json: [{record, cases: [rows, ..]}, ..] to [[{ids, ..} | {error}, ..], ..].
import { Encoding } from "../../src/slimrank/deploying/browser/encoding.js";
import { InputError, parseRows } from "../../src/slimrank/deploying/browser/values.js";

const parts = [];
for await (const part of process.stdin) parts.push(part);

function encoded(encoding, rows) {
  try {
    const { ids, numbers, unknown, shortened } = encoding.encode(rows);
    return { ids: Array.from(ids), numbers: Array.from(numbers), unknown, shortened };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { error: error.message };
  }
}

const answers = parseRows(Buffer.concat(parts).toString()).map(({ record, cases }) => {
  const encoding = new Encoding(record, record.artifact);
  return cases.map((rows) => encoded(encoding, rows));
});
process.stdout.write(JSON.stringify(answers));
