"""How fast text becomes tokens, against the bare `tokenizers` library on the same documents, in interleaved rounds.

    python benchmarks/tokenising.py [--megabytes 16] [--ray] [--json FILE]

The text is Python source of the running interpreter, written as Parquet files in the layout of a dataset on the hub;
the tokenizer is a byte-level BPE of 8,192 ids that is trained on it first. Each round takes, one after another:

    encode_batch        the library, on documents that lie in memory, all at once
    encode_batch_fast   the same without offsets
    in process          harness.sources.tokenising.tokenise: read, split, encode, keep blocks, pack
    Ray Data            the same with harness.cluster.data.tokenise, on a Ray of this machine

A ratio is of tokens a second, ours over the library's of the same round; the figure is the median over the rounds. What
Ray takes to start its actors, seconds, is in its figure, and counts where the text is small.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.sources import tokenising
from harness.sources.text import Text, documents, parts
from harness.sources.tokenizer import BPE, Pretrained, from_json

ROUNDS = 3
FILES = 4
VOCAB = 8192


def corpus(root: Path, megabytes: float) -> Text:
    """A dataset of about so many `megabytes` in `root`, with its tokenizer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stdlib = Text.stdlib(tokenizer=BPE(VOCAB))
    source = [d.text for part in parts(stdlib) for d in documents(stdlib, part)]
    found: list[str] = []
    size = 0
    while size < megabytes * 1e6:  # the standard library over and over; a line on top makes it another document
        found.append(f"# {len(found)}\n{source[len(found) % len(source)]}")
        size += len(found[-1])
    (root / "data").mkdir(parents=True)
    for k in range(FILES):
        table = pa.table({"text": found[k::FILES]})
        pq.write_table(table, root / "data" / f"train-{k:05d}-of-{FILES:05d}.parquet", row_group_size=1000)
    place = root / "tokenizer.json"
    place.write_text(BPE(VOCAB).train(source[:300]), "utf-8")
    vocab = from_json(place.read_text("utf-8")).get_vocab_size()
    return Text(str(root), tokenizer=Pretrained(str(place), vocab)).resolved()


def library(text: Text, name: str) -> Callable[[Path], int]:
    """Encode all documents with the method `name` of the library; returns the number of tokens."""
    assert isinstance(text.tokenizer, Pretrained)
    tokenizer = from_json(text.tokenizer.load())
    found = [d.text for part in parts(text) for d in documents(text, part)]
    return lambda _: sum(len(e) for e in getattr(tokenizer, name)(found, add_special_tokens=False))


def in_process(text: Text) -> Callable[[Path], int]:
    def work(directory: Path) -> int:
        (directory / "out").mkdir(parents=True)
        return total(tokenising.tokenise(text, directory / "out", work=directory / "work"))

    return work


def on_ray(text: Text) -> Callable[[Path], int]:
    from harness.cluster import data

    def work(directory: Path) -> int:
        (directory / "out").mkdir(parents=True)
        return total(data.tokenise(text, directory / "out", cpus=0.0, work=directory / "work"))

    return work


def total(summary: dict[str, Any]) -> int:
    """Tokens of both splits but for the end-of-text tokens, which the library does not make."""
    return sum(summary[s]["tokens"] - summary[s]["documents"] for s in ("train", "validation"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=16.0)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    try:
        text = corpus(root / "corpus", args.megabytes)
        ways = {name: library(text, name) for name in ("encode_batch", "encode_batch_fast")}
        ways["in process"] = in_process(text)
        if args.ray:
            import ray

            ray.init(include_dashboard=False, logging_level="WARNING", _temp_dir=str(root / "ray"))
            ways["Ray Data"] = on_ray(text)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS):
            for name, work in ways.items():
                directory = root / "run"
                before = time.perf_counter()
                tokens = work(directory)
                rates[name].append(tokens / (time.perf_counter() - before))
                shutil.rmtree(directory, ignore_errors=True)
                print(f"round {number + 1} {name:<18} {rates[name][-1] / 1e6:.3f} million tokens a second", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    ratios = {
        name: {
            of: statistics.median(a / b for a, b in zip(rates[name], rates[of], strict=True))
            for of in ("encode_batch", "encode_batch_fast")
        }
        for name in rates
        if not name.startswith("encode")
    }
    for name, found in ratios.items():
        print(f"{name}: " + ", ".join(f"{ratio:.2f} of {of}" for of, ratio in found.items()))
    if args.json:
        args.json.write_text(json.dumps({"cores": os.cpu_count(), "tokens_per_s": rates, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
