"""What a source gives, before anything is trained on it: its numbers, and those of a text corpus beside it.

`run` is the command; `measure` gives the numbers of any generated source and `measure_text` those of a corpus, as plain
data. `preview_page` draws them.
"""

import contextlib
import dataclasses
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import compressibility, preview_page, space, statistics
from harness.automata import engine, score
from harness.errors import InputError, require
from harness.rng import key, permuted
from harness.sources import checking, tokenising
from harness.sources.text import BPE, Part, Text, documents, parts, split_of
from harness.specs import Corpus, Source, Train, canonical, digest, no_source

SEED = 0
"""The training seed whose first sequences are looked at."""
CONTEXT = 1024
"""Tokens of a sequence, the paper's; more where ten frames need them."""
BLOCK = 512
"""Sequences or candidates that a thread makes between two lines of progress."""
RULES, TIMES = 16, 48
"""Accepted rules that are drawn, and frames of each."""
BINS = np.linspace(0, 1.1, 111)
"""Edges of the histogram of gzip ratios: short pieces that do not compress lie a little above 1."""
POINTS = 200
"""Ranks, evenly spaced in their logarithm, that a rank-frequency curve keeps."""
TEXT_BYTES, TEXT_DOCUMENTS = 32 * 2**20, 5_000
"""A larger corpus is sampled: about so many bytes of local files, or so many documents of a dataset."""
BESIDE_VOCAB = 10_000
"""Ids of the tokenizer that is trained on a text given as a path: as many as the paper's automata have patches."""

Progress = Callable[[str], None]


def run(target: str, beside: str | None, sequences: int, out: Path | None, threads: int, store: Path) -> None:
    """Print the numbers of the source `target` (FILE:NAME) and write them and the page to `out`. Raises InputError."""
    name, source = find(target)
    text = None if beside is None else find_text(beside)
    out = writable(out or Path("preview") / name, store)
    say = progress()
    engine.set_threads(threads)
    with in_a_line(source):
        found, frames = measure(name, source, sequences, say)
    measured = [found]
    if text is not None:
        measured.append(measure_text(*text, sequences, found["patches"], say)[0])
    say("")
    print(table(measured))
    for path in preview_page.write(out, measured, rows(measured), frames):
        print(f"wrote {path}")


@contextlib.contextmanager
def in_a_line(source: Source) -> Iterator[None]:
    """Raise as InputError, with its place, whatever a class of a search space raises; of the harness's own classes only
    their refusals are the user's to mend."""
    kind = type(source)
    try:
        yield
    except Exception as e:
        if isinstance(e, InputError) or not kind.__module__.startswith(space.MODULE_PREFIX):
            raise
        file = sys.modules[kind.__module__].__file__
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == file]
        place = f"{file}:{lines[-1]}" if lines else file
        raise InputError(f"{place}: {kind.__name__}: {type(e).__name__}: {' '.join(str(e).split())}") from e


def progress() -> Progress:
    """A line on stderr that says what is being done: rewritten on a terminal, else one for each kind of work."""
    shown = ""

    def say(line: str) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            print(f"\r{line:<{len(shown)}}", end="" if line else "\r", file=sys.stderr, flush=True)
            shown = line
        elif (kind := line.partition(":")[0]) != shown and line:
            print(kind, file=sys.stderr, flush=True)
            shown = kind

    return say


# ---- what is looked at


def find(target: str) -> tuple[str, Source]:
    """Name and source of FILE:NAME. Of a corpus, a stage or a study the one generated source that is in it."""
    value, name, module = space.load_value(target, "study")
    found = [value] if is_source(value) else generated(value)
    if len(found) == 1:
        return name, found[0]
    known = ", ".join(n for n, v in vars(module).items() if is_source(v)) or "none"
    if found:
        several = "; ".join(settings(s) for s in found)
        what = f"{name!r} has {len(found)} generated sources, so give the one a name in a file: {several}"
    elif hasattr(value, "open"):
        what = f"{name!r} is no source: {no_source(value)}"
    else:
        what = f"there is no {name!r}" if value is None else f"{name!r} is a value of type {type(value).__name__}"
    raise InputError(f"{target}: {what}; sources in this file: {known}")


def is_source(value: Any) -> bool:
    """Whether `value` has what a `specs.Source` has."""
    return no_source(value) is None


def generated(value: Any) -> list[Source]:
    """The distinct generated sources in a corpus, a stage (its warm-up included) or a study."""
    if isinstance(value, Corpus):
        return [value.source]
    if isinstance(value, Train):
        trains = list(value.chain())
    elif isinstance(value, space.Study):
        points = value.points() if value.search is None else [trial.point for trial in value.trials()]
        trains = [t for point in points for t in point.train.chain()]
    else:
        return []
    sources = [t.corpus.source for t in trains if not t.corpus.source.stored]
    return list({digest(s): s for s in sources}.values())


def find_text(target: str) -> tuple[str, Text]:
    """Name and text of FILE.py:NAME, or of a path of text files (`stdlib`: the standard library of this interpreter).

    A path has a tokenizer trained on it; all of its documents are read, since none need be held out.
    """
    if target.rpartition(":")[0].endswith(".py"):
        value, name, module = space.load_value(target, "")
        if not isinstance(value, Text):
            known = ", ".join(n for n, v in vars(module).items() if isinstance(v, Text)) or "none"
            raise InputError(f"--beside {target}: {name!r} is no Text; texts in this file: {known}")
        return name, value
    return Path(target).name, Text.local(target, tokenizer=BPE(BESIDE_VOCAB), held_out=1e-12)


def writable(out: Path, store: Path) -> Path:
    """`out`, made if it was not there; InputError if it cannot be written or lies in a store of results."""
    inside = any(d == store.resolve() or (d / "stages").is_dir() for d in (out.resolve(), *out.resolve().parents))
    require(not inside, "--out", str(out), "lies in a store of results; choose a directory of its own")
    probe = out / f".probe-{secrets.token_hex(4)}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise InputError(f"--out = {str(out)!r}: cannot be written ({e.strerror}); choose another directory") from e
    return out


# ---- numbers


def measure(
    name: str, source: Source, sequences: int, say: Progress = lambda line: None
) -> tuple[dict[str, Any], tuple[Any, Any] | None]:
    """The numbers of `source`, as JSON data, from its first `sequences` training sequences; and, where it has them,
    uint8 (rules, times, grid, grid) frames of held-out sequences with their gzip ratios. A text has `measure_text`.
    """
    if isinstance(source, Text):
        found, _ = measure_text(name, source, sequences, compressibility.PATCHES, say)
        return found, None
    require(not source.stored, "source", type(source).__name__, "is read from a store; preview generated ones and Text")
    frame = source.frame_tokens
    context = max(CONTEXT, score.FRAMES * frame) if frame else CONTEXT
    say("first sequence")  # kernels are compiled, and what a source keeps is made: no part of its speed
    reader: Any = source.open()
    checking.look(source, reader, context)
    candidates = None
    if hasattr(reader, "scores"):
        say(f"fresh candidates: {sequences}")
        candidates = reader.scores(sequences)
    tokens, seconds = generate(source, reader, sequences, context, BLOCK * engine.threads(), say)
    say("statistics")
    found = describe(name, source, tokens, compressibility.PATCHES if frame is None else frame - 2)
    found["tokens_per_s"] = tokens.size / seconds
    found["threads"] = engine.threads()
    band = getattr(source, "band", None)
    if candidates is not None:
        p = float(source.accepts(candidates).mean()) if hasattr(source, "accepts") else 1.0
        error = (p * (1 - p) / sequences) ** 0.5
        found["acceptance"] = {"share": p, "error": error, "candidates": sequences, "band": band}
        found["gzip"]["candidates"] = compressibility.summary(candidates, found["gzip"]["sequences"]["iid"])
        found["histogram"]["candidates"] = histogram(candidates)
    frames = None
    if hasattr(reader, "frames"):
        say("pictures")
        frames = reader.frames(RULES, TIMES)
        found["first_frame"], found["frame_step"] = getattr(source, "burn_in", 0), getattr(source, "stride", 1)
    return found, frames


def generate(source: Source, reader: Any, sequences: int, context: int, block: int, say: Progress) -> tuple[Any, float]:
    """The first `sequences` training sequences, int32 (sequences, context), and the seconds that they took."""
    begun, made = time.perf_counter(), []
    for first in range(0, sequences, block):
        index = np.arange(first, min(first + block, sequences))
        made.append(checking.checked(source, reader.sequences(SEED, index, context), len(index), context)[0])
        rate = (index[-1] + 1) * context / (time.perf_counter() - begun)
        say(f"sequences: {index[-1] + 1} of {sequences}, {rate:,.0f} tokens/s")
    return np.concatenate(made), time.perf_counter() - begun


def describe(name: str, source: Source, tokens: Any, patches: int) -> dict[str, Any]:
    """What the sequences `tokens`, int32 (n, context), of any source say, as JSON data.

    Gzip ratios are those of the first ten frames of every sequence or, without frames, of all its windows of
    10 x `patches` tokens, over that of i.i.d. tokens of the same ids.
    """
    frame = source.frame_tokens
    alphabet = source.vocab_size - (2 if frame else 0)
    if frame is None:
        ratios = compressibility.of_tokens(tokens, patches)
    else:
        ratios = score.ratio(tokens[:, : score.FRAMES * frame].reshape(len(tokens), -1, frame)[:, :, 1:-1])
    counts = statistics.counts(tokens[:, statistics.patch_places(tokens.shape[1], frame)])
    ranks = np.unique(np.geomspace(1, len(counts), POINTS).round().astype(int))
    return {
        "name": name,
        "kind": type(source).__name__,
        "settings": settings(source),
        "source": canonical(source),
        "context": tokens.shape[1],
        "alphabet": alphabet,
        "patches": patches,
        "statistics": statistics.describe(tokens, frame)._asdict(),
        "gzip": {"sequences": compressibility.summary(ratios, score.iid_ratio(alphabet, patches))},
        "histogram": {"edges": BINS.tolist(), "sequences": histogram(ratios)},
        "ranks": {"rank": ranks.tolist(), "share": (counts[ranks - 1] / counts.sum()).tolist()},
        "acceptance": None,
        "tokens_per_s": None,
        "text": None,
    }


def histogram(ratios: Any) -> list[float]:
    """Share of `ratios` in every one of `BINS`."""
    counted, _ = np.histogram(np.minimum(ratios, BINS[-1]), BINS)
    return (counted / len(ratios)).tolist()


def settings(value: Any) -> str:
    """A value as it would be written: the fields that differ from their defaults."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    fields = [f for f in dataclasses.fields(value) if getattr(value, f.name) != f.default]
    return f"{type(value).__name__}({', '.join(f'{f.name}={settings(getattr(value, f.name))}' for f in fields)})"


# ---- text


class Stream:
    """Reader of a text that was tokenised into memory: windows that tile it, in a pseudorandom order."""

    token_bytes = None

    def __init__(self, tokens: Any) -> None:
        self.tokens = tokens

    def epoch(self, context: int) -> int:
        return len(self.tokens) // context

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """int32 (n, context) tokens, twice: nothing here asks for targets."""
        start = permuted(index, self.epoch(context), int(key(seed))) * context
        tokens = self.tokens[start[:, None] + np.arange(context)].astype(np.int32)
        return tokens, tokens

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        return self.sequences(SEED, np.arange(count), context)


def measure_text(
    name: str, text: Text, sequences: int, patches: int, say: Progress = lambda line: None
) -> tuple[dict[str, Any], Stream]:
    """The numbers of the training split of `text`, as those of a source, with "text" as `compressibility.of_text`
    gives it at `patches` a frame; and its reader."""
    context = max(CONTEXT, score.FRAMES * patches)
    reader, found, whole = read(name, text, context, say)
    say("statistics of the text")
    tokens, _ = reader.sequences(SEED, np.arange(min(sequences, reader.epoch(context))), context)
    numbers = describe(name, text, tokens, patches)
    numbers["text"] = compressibility.of_text(reader, found, text.vocab_size, patches)
    numbers["text"] |= {"sampled_documents": len(found), "whole": whole, "tokens_read": len(reader.tokens)}
    return numbers, reader


def read(name: str, text: Text, context: int, say: Progress) -> tuple[Stream, list[str], bool]:
    """Reader and documents of the training split of `text`, or of a sample of it, and whether it is all of it.
    InputError if that is less than one sequence of `context`."""
    if text.dataset is not None:
        text = replace(text, documents=min(text.documents or TEXT_DOCUMENTS, TEXT_DOCUMENTS))
    say(f"text {name}: listing")
    cut = parts(text)
    chosen = [cut[i] for i in compressibility.spaced(len(cut), TEXT_BYTES // 2**20)]
    found: list[str] = []
    for number, part in enumerate(chosen, 1):
        found += train_documents(text, part)
        say(f"text {name}: {number} of {len(chosen)} parts read")
    require(bool(found), "Text", text.dataset or text.files, "holds no documents that are not empty")
    say(f"text {name}: tokenizer")
    bpe = text.tokenizer
    tokenizer = bpe.train(found) if isinstance(bpe, BPE) else tokenising.train_tokenizer(text)
    pieces = []
    for number, part in enumerate(chosen, 1):
        pieces.append(tokenising.encode(text, tokenizer, part)["train"])
        say(f"text {name}: {number} of {len(chosen)} parts tokenised")
    tokens = np.concatenate(pieces)
    way_out = f"has {len(tokens)} tokens, too few for one sequence of {context}; use more text"
    require(len(tokens) >= context, "Text", text.dataset or text.files, way_out)
    return Stream(tokens), found, len(chosen) == len(cut) and text.dataset is None


def train_documents(text: Text, part: Part) -> Iterable[str]:
    """The texts of `part` that are in the training split."""
    return (d.text for d in documents(text, part) if split_of(text, d.name) == "train")


# ---- the table


def rows(measured: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """The table: a label, and a cell for everything that was measured."""
    found = [
        ("acceptance", [acceptance(m) for m in measured]),
        ("gzip ratio, mean", [ratio(m["gzip"]["sequences"]["mean"]) for m in measured]),
        ("gzip ratio, 5 / 50 / 95 %", [quantiles(m["gzip"]["sequences"]) for m in measured]),
        ("i.i.d. tokens of the same ids", [ratio(m["gzip"]["sequences"]["iid"]) for m in measured]),
        ("normalised by i.i.d., mean", [ratio(m["gzip"]["sequences"]["normalised"]["mean"]) for m in measured]),
        ("normalised, 5 / 50 / 95 %", [quantiles(m["gzip"]["sequences"]["normalised"]) for m in measured]),
        ("all candidates, 5 / 50 / 95 %", [quantiles(m["gzip"].get("candidates")) for m in measured]),
        ("raw UTF-8 in pieces of as many bytes, mean", [text_mean(m, "bytes") for m in measured]),
        ("raw UTF-8 of whole documents, mean", [text_mean(m, "documents") for m in measured]),
        ("Zipf slope, ranks 1 to 1000", [number(m["statistics"]["zipf_slope"], ".2f") for m in measured]),
        ("unigram entropy, bits", [number(m["statistics"]["unigram_bits"], ".2f") for m in measured]),
        ("distinct tokens a sequence, mean (median)", [distinct(m["statistics"]) for m in measured]),
        ("equal to the frame before", [percent(m["statistics"]["repeated"]) for m in measured]),
        ("at a fixed point at the end", [percent(m["statistics"]["still"]) for m in measured]),
        ("repeated sequences", [percent(m["statistics"]["duplicates"]) for m in measured]),
        ("sequences x tokens", [f"{m['statistics']['sequences']:,} x {m['context']:,}" for m in measured]),
        ("ids that occur", [f"{m['statistics']['ids']:,} of {m['alphabet']:,}" for m in measured]),
        ("generation, tokens/s (threads)", [speed(m) for m in measured]),
    ]
    return [(label, cells) for label, cells in found if any(cells)]


def table(measured: Sequence[dict[str, Any]]) -> str:
    """`rows` for a terminal, with the names above."""
    lines = [("", [m["name"] for m in measured]), *rows(measured)]
    first = max(len(label) for label, _ in lines)
    widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(measured))]
    return "\n".join(
        f"{label:<{first}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for label, cells in lines
    )


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def ratio(value: float | None) -> str:
    return number(value, ".3f")


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def quantiles(found: dict[str, Any] | None) -> str:
    return "" if found is None else " / ".join(f"{found['quantiles'][q]:.2f}" for q in ("0.05", "0.5", "0.95"))


def acceptance(found: dict[str, Any]) -> str:
    rate = found["acceptance"]
    if rate is None:
        return ""
    return (
        f"{100 * rate['share']:.1f} +- {100 * rate['error']:.1f} %" if rate["error"] else f"{100 * rate['share']:.0f} %"
    )


def text_mean(found: dict[str, Any], what: str) -> str:
    return ratio(found["text"][what]["mean"]) if found["text"] and found["text"][what] else ""


def distinct(found: dict[str, Any]) -> str:
    return f"{found['distinct']:.0f} ({found['distinct_median']:.0f})"


def speed(found: dict[str, Any]) -> str:
    return f"{found['tokens_per_s']:,.0f} ({found['threads']})" if found["tokens_per_s"] else ""
