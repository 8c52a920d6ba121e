"""The whole way on MovieLens-100K, step by step, in the words that the command line uses too. Takes about a minute.

    python recipes/quickstart.py

`slimrank run` does the same from one recipe, with checkpoints, three teachers and a report.
"""

from pathlib import Path

import slimrank
from slimrank import Training

if __name__ == "__main__":
    dataset = slimrank.load_dataset("movielens-100k")
    data = slimrank.encode_dataset(dataset)

    # The large model, and a small one that learns from it.
    teacher = slimrank.train({"name": "dcnv2", "dropout": 0.3}, data, Training(epochs=4, l2=0.05), seed=1)
    student = slimrank.train(
        {"name": "dnn", "hidden": (64, 32)}, data, Training(epochs=8, l2=0.05), seed=1, teachers=[teacher]
    )

    # Four-bit tables and eight-bit layers, then training goes on with the quantisers in the loop.
    slim, steps = slimrank.compress(student, [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], data)
    slim = slimrank.train(slim, data, Training(epochs=4, l2=0.05), seed=1, teachers=[teacher])
    for step in steps:
        print(f"{step['name']}: {step['bytes_before']:,} bytes to {step['bytes_after']:,}")

    # What is measured is what is shipped: the artifacts, by the runtime that will serve them.
    out = Path("runs/quickstart")
    out.mkdir(parents=True, exist_ok=True)
    slimrank.export(teacher, data.encoding, out / "teacher")
    slimrank.export(slim, data.encoding, out / "slim")
    measured = slimrank.evaluate({"teacher": out / "teacher", "slim": out / "slim"}, dataset)
    for name, found in measured.items():
        quality, latency = found["quality"], found["latency_ms"]["256"]
        print(
            f"{name}: AUC {quality['auc']:.4f}, {found['bytes']['disk']:,} bytes, {latency['p50']:.3f} ms at 256 rows"
        )

    # Raw rows in, probabilities out, without torch.
    model = slimrank.load(out / "slim")
    print(model.predict(dataset.test.head(3)).probability)
