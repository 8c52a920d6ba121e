"""Numbers to words: the rows of the table that the page and the terminal both show.

Bytes are decimal (1 KB = 1000 bytes), quality has four decimals (.001 is what the field calls a difference), times
have three digits. Left out: any markup.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimrank.report.result import Latency, Measured, Paired, Result, Searched

QUALITY = {
    "auc": "AUC",
    "gauc": "GAUC",
    "logloss": "Logloss",
    "normalized_entropy": "Normalised entropy",
    "pcoc": "PCOC",
    "ndcg@10": "NDCG@10",
    "ndcg@20": "NDCG@20",
    "recall@10": "Recall@10",
    "recall@20": "Recall@20",
    "mrr": "MRR",
    "map": "MAP",
}
BYTES = {
    "disk": "Graph, weights on disk",
    "vocabulary": "Vocabulary on disk",
    "wire": "On the wire, zstd",
    "wire_graph": "Wire: graph, weights",
    "wire_vocabulary": "Wire: vocabulary",
    "wire_brotli": "On the wire, brotli",
    "resident": "Resident in memory",
}
NONE = "–"


@dataclass(frozen=True)
class Figure:
    """One line of the table, in words; `better` is None where the change is neither."""

    group: str
    name: str
    teacher: str
    slim: str
    change: str
    better: bool | None = None


def figures(result: Result) -> list[Figure]:
    """The lines of the table: quality, bytes, then latency by rows."""
    teacher, slim = result.teacher, result.slim
    lines = [_quality(key, teacher, slim) for key in _order(QUALITY, teacher.quality, slim.quality)]
    lines += [_bytes(key, teacher, slim) for key in _order(BYTES, teacher.bytes, slim.bytes)]
    for rows in sorted(set(teacher.latency_ms) | set(slim.latency_ms), key=int):
        times = teacher.latency_ms.get(rows), slim.latency_ms.get(rows)
        lines += [_latency(rows, "p50", *times), _latency(rows, "p99", *times)]
    return lines


def _order(known: dict[str, str], *found: dict[str, float] | dict[str, int]) -> list[str]:
    """The keys that any of `found` has: the known ones in their order, then the others."""
    present = [key for mapping in found for key in mapping]
    return [key for key in known if key in present] + sorted(set(present) - set(known))


def _quality(key: str, teacher: Measured, slim: Measured) -> Figure:
    """A line of quality, with its range over seeds, and the difference slim - teacher."""
    before, after = teacher.quality.get(key), slim.quality.get(key)
    words = _with_range(key, teacher), _with_range(key, slim)
    if before is None or after is None:
        return Figure("Quality", QUALITY.get(key, key), *words, NONE)
    change = signed(after - before)
    better = None if float(change.lstrip("+−")) == 0 else _is_better(key, before, after)
    return Figure("Quality", QUALITY.get(key, key), *words, change, better)


def _is_better(key: str, before: float, after: float) -> bool:
    """Whether a metric went the right way: PCOC towards 1, losses down, all else up."""
    if key == "pcoc":
        return abs(after - 1) < abs(before - 1)
    return after < before if key in ("logloss", "normalized_entropy") else after > before


def _with_range(key: str, measured: Measured) -> str:
    """`0.9847 (0.9843 to 0.9851)`: the value, and least and greatest of several seeds."""
    value = measured.quality.get(key)
    if value is None:
        return NONE
    seeds = [one[key] for one in measured.by_seed if key in one]
    spread = f" ({min(seeds):.4f} to {max(seeds):.4f})" if len(seeds) > 1 else ""
    return f"{value:.4f}{spread}"


def _bytes(key: str, teacher: Measured, slim: Measured) -> Figure:
    """A line of bytes, and how many times smaller."""
    before, after = teacher.bytes.get(key), slim.bytes.get(key)
    words = (NONE if before is None else size(before)), (NONE if after is None else size(after))
    return Figure("Bytes", BYTES.get(key, key), *words, *_times(before, after, "smaller", "larger"))


def _latency(rows: str, quantile: str, teacher: Latency | None, slim: Latency | None) -> Figure:
    """A line of latency, and how many times faster."""
    before, after = (getattr(one, quantile) if one else None for one in (teacher, slim))
    words = (NONE if before is None else milliseconds(before)), (NONE if after is None else milliseconds(after))
    name = f"{quantile} at {plural(int(rows), 'row')}"
    return Figure("Latency", name, *words, *_times(before, after, "faster", "slower"))


def _times(before: float | None, after: float | None, less: str, more: str) -> tuple[str, bool | None]:
    """`33.2x smaller`, or `1.2x larger`; and whether that is good."""
    if not before or not after:
        return NONE, None
    if f"{before / after:.1f}" == "1.0":
        return "about equal", None
    if after < before:
        return f"{before / after:.1f}x {less}", True
    return f"{after / before:.1f}x {more}", False


def size(count: float) -> str:
    """Bytes with three digits, decimal units.

    >>> size(55_240), size(1_832_000), size(999), size(1e9), size(999_999), size(0)
    ('55.2 KB', '1.83 MB', '999 bytes', '1.00 GB', '1.00 MB', '0 bytes')
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit, bytes_each in (("KB", 1e3), ("MB", 1e6)):
        if count < 999.5 * bytes_each:
            return f"{_digits(count / bytes_each)} {unit}"
    return f"{_digits(count / 1e9)} GB"


def milliseconds(value: float) -> str:
    """Milliseconds with three digits.

    >>> milliseconds(0.01234), milliseconds(2.5), milliseconds(123.4)
    ('0.0123 ms', '2.50 ms', '123 ms')
    """
    return f"{_digits(value)} ms"


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    for limit, decimals in ((99.95, 0), (9.995, 1), (0.9995, 2), (0.09995, 3)):
        if value >= limit:
            return f"{value:.{decimals}f}"
    return f"{value:.4f}"


def signed(value: float) -> str:
    """A difference of quality with its sign, a true minus, and four decimals.

    >>> signed(0.00123), signed(-0.00123), signed(-0.00001)
    ('+0.0012', '−0.0012', '0.0000')
    """
    words = f"{abs(value):.4f}"
    return words if float(words) == 0 else ("+" if value > 0 else "−") + words


def interval(paired: Paired) -> str:
    """`+0.0003 to +0.0011`."""
    return f"{signed(paired.low)} to {signed(paired.high)}"


def probability(p: float) -> str:
    """A p-value with three decimals.

    >>> probability(0.0421), probability(1e-9)
    ('0.042', 'below 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "row"), plural(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def figure(key: str, value: float) -> str:
    """A figure that a goal may bound, in words.

    >>> figure("bytes", 31_200), figure("p50_ms@256", 0.021), figure("auc_drop", 0.0004)
    ('31.2 KB', '0.0210 ms', '+0.0004')
    """
    if key.endswith("bytes"):
        return size(value)
    return milliseconds(value) if "_ms@" in key else signed(value)


def answers(result: Result) -> list[str]:
    """What was asked and what came of it, where something was; then the result in one sentence."""
    return [*([asked(result.search)] if result.search else []), answer(result)]


def asked(search: Searched) -> str:
    """What a search was asked for, and whether it was found, in one sentence."""
    whole = sum(trial.state == "complete" for trial in search.trials)
    found = f"trial {search.chosen} of {len(search.trials)} ({whole} trained whole)"
    values = ", ".join(f"{bound.key} {figure(bound.key, bound.value)}" for bound in search.bounds)
    if search.met:
        return f"Asked for {search.goal}: met by {found}, with {values} on test rows{_proven(search)}."
    words = f"Asked for {search.goal}: none meets it; nearest is {found}, with {values} on test rows."
    given = [f"{one.key} <= {figure(one.key, one.value)} (trial {one.trial})" for one in search.concessions]
    return words + (f" On validation rows it would be met with {' or '.join(given)}." if given else "")


def _proven(search: Searched) -> str:
    """Whether test rows prove what they show of losses of quality."""
    outcomes = {bound.key: bound.proof.get("outcome", "not decided") for bound in search.bounds if bound.proof}
    if not outcomes:
        return ""
    unsure = [f"{key} {outcome}" for key, outcome in outcomes.items() if outcome != "non-inferior"]
    return f", which do not prove it: {', '.join(unsure)}" if unsure else ", which prove it"


def answer(result: Result) -> str:
    """The models compared in one sentence."""
    lines = {(line.group, line.name): line for line in figures(result)}
    disk = lines.get(("Bytes", BYTES["disk"]))
    parts = [disk.change.replace("about equal", "about as large")] if disk and disk.change != NONE else []
    latencies = [line for line in lines.values() if line.group == "Latency" and line.name.startswith("p50")]
    if latencies and latencies[-1].change != NONE:
        parts.append(
            f"{latencies[-1].change.replace('about equal', 'about as fast')} {latencies[-1].name.removeprefix('p50 ')}"
        )
    name = metric_name(result)
    judged = lines.get(("Quality", name))
    costs = f"Against its teacher the slim model is {' and '.join(parts)}" if parts else ""
    if judged is None or judged.change == NONE:
        return f"{costs or 'Nothing can be compared'}."
    quality = f"ts {name} changes by {judged.change}{_evidence(result)}."
    return f"{costs}; i{quality}" if costs else f"I{quality}"


def metric_name(result: Result) -> str:
    """The metric that models are compared by, as people write it."""
    return QUALITY.get(result.metric, result.metric)


def _evidence(result: Result) -> str:
    """The interval and verdict of one paired comparison, of several how many are not inferior."""
    judged = [paired.verdict for paired in result.comparison if paired.verdict]
    if len(result.comparison) == 1:
        words = f", {verdict(result.comparison[0])}" if judged else ""
        return f" (95% interval {interval(result.comparison[0])}{words})"
    shown = sum(one.outcome == "non-inferior" for one in judged)
    return f" (non-inferior at {judged[0].margin:g} on {shown} of {len(judged)} seeds)" if judged else ""


def verdict(paired: Paired) -> str:
    """`non-inferior at 0.001`."""
    return NONE if paired.verdict is None else f"{paired.verdict.outcome} at {paired.verdict.margin:g}"


def limits_line(result: Result) -> str:
    """What the data itself allows, where that is known: of synthetic rows the AUC and logloss of their true law."""
    known = {name.replace("_", " "): value for name, value in result.data_facts.items() if isinstance(value, float)}
    words = ", ".join(f"{name} {value:.4f}" for name, value in known.items())
    return f"The data allows: {words}." if words else ""


def machine_line(result: Result) -> str:
    """Processor, cores, threads, instruction set and system, as far as they are known."""
    parts = [
        result.processor,
        plural(result.cores, "core") if result.cores else "",
        f"{plural(result.threads, 'thread')} a model" if result.threads else "",
        ", ".join(result.instruction_set),
        result.system,
    ]
    return " · ".join(filter(None, parts))
