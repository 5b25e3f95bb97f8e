"""A store of any size in the layout that the harness writes, with effects that are known: one arm from scratch, and
arms after automata over bands of complexity, model sizes and budgets of automata. The same arguments write the same
bytes.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Band = tuple[float, float]
BANDS: tuple[Band, ...] = ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 1.0))
SIZES = {"small": (3, 64), "middle": (6, 128), "large": (12, 256), "huge": (24, 512), "giant": (48, 1024)}
"""Depth and width."""
BUDGETS = (50_000, 100_000, 200_000, 400_000, 800_000)
FRAMES = 15


def peak(band: Band, size: str, budget: int) -> float:
    """A speedup that is largest for the second band, grows with the budget and falls with the size."""
    position = (BANDS.index(band) if band in BANDS else 10 * band[0] - 2) - 1.0
    depth = list(SIZES).index(size)
    return float(1 + (0.5 - 0.08 * position**2) * (budget / 400_000) ** 0.25 / (1 + 0.2 * depth))


def law(tokens: np.ndarray, size: str) -> np.ndarray:
    """A validation curve (nats) of text tokens: a power law above a loss that falls with the size."""
    return 2.0 - 0.1 * list(SIZES).index(size) + (tokens / 1e6) ** -0.3


def grid(evaluations: int, tokens: int) -> np.ndarray:
    """Tokens (evaluations,) of a run's evaluations, the one before training first: dense early, and even later on."""
    early = evaluations // 4
    shares = np.r_[0, np.geomspace(0.01, 0.1, early), np.linspace(0.1, 1, evaluations - early)[1:]]
    return np.round(shares * tokens).astype(int)


def simulate(
    root: Path,
    *,
    study: str = "simulated",
    arms: Sequence[str] = ("nca",),
    bands: Sequence[Band] = BANDS,
    sizes: Sequence[str] = ("small", "middle"),
    budgets: Sequence[int] = BUDGETS[2:3],
    seeds: int = 5,
    evaluations: int = 32,
    effect: Callable[[Band, str, int], float] = peak,
    text: int = 1_024_000,
    noise: float = 0.006,
    schedule: str = "wsd",
) -> Path:
    """Writes the store and registers the study; returns `root`. Every arm has a cell at each band, size and budget, and
    a run a seed; all arms go on from the same automata, and have the true speedup `effect(band, size, budget)`. Stages:
    the text, (1 + len(arms)) x cells of an arm x seeds, and sizes x seeds from scratch."""
    rng = np.random.default_rng(0)
    writer = _Writer(root, study, schedule)
    at = grid(evaluations, text)
    points: list[dict[str, Any]] = []
    baseline: dict[tuple[str, int], int] = {}
    shared = {(size, seed): rng.normal(0, noise) for size in sizes for seed in range(seeds)}
    for size, seed in itertools.product(sizes, range(seeds)):
        loss = law(np.maximum(at, 1), size) + shared[size, seed] + rng.normal(0, noise / 2, len(at))
        digest = writer.train(("scratch", size), seed, _text_spec(size, text, schedule), at, loss, None)
        baseline[size, seed] = len(points)
        points.append(writer.point("scratch", {"size": size, "seed": seed}, [digest], None))
    for band, size, budget in itertools.product(bands, sizes, budgets):
        warm_at, speedup = grid(evaluations, budget), effect(band, size, budget)
        spec = _warm_spec(band, size, budget, schedule)
        for seed in range(seeds):
            falling = 2.8 - 0.9 * warm_at / warm_at[-1] + rng.normal(0, noise)
            warm = writer.train(("warm", band, size, budget), seed, spec, warm_at, falling, None)
            for arm in arms:
                loss = law(np.maximum(at * speedup, 1), size) + shared[size, seed] + rng.normal(0, noise / 2, len(at))
                after = _text_spec(size, text, schedule, spec)
                digest = writer.train((arm, band, size, budget), seed, after, at, loss, warm)
                axes = {"size": size, "band": list(band), "budget": budget, "seed": seed}
                points.append(writer.point(arm, axes, [warm, digest], baseline[size, seed]))
    writer.register(["scratch", *arms], points)
    return root


CORPUS = {
    "column": "text", "config": None, "content": "9" * 64, "dataset": None, "documents": None, "held_out": 0.02,
    "revision": None, "split": "train", "tokenizer": {"type": "BPE", "vocab": 512}, "type": "Text", "version": 1,
}  # fmt: skip


def _spec(source: dict[str, Any], size: str, tokens: int, schedule: str, init: Any) -> dict[str, Any]:
    """A stage as its manifest has it; the seed is a place to fill."""
    depth, width = SIZES[size]
    return {
        "type": "Train", "version": 2, "corpus": {"epochs": 2, "seed": "@seed@", "source": source, "type": "Corpus"},
        "tokens": tokens,
        "model": {
            "context": 256, "depth": depth, "embed_std": 0.075, "heads": 4, "init_std": 0.05, "mlp": 4 * width,
            "norm_eps": 1e-05, "rope_theta": 10000, "tied": True, "type": "Llama", "width": width,
        },
        "recipe": {
            "batch": 8, "beta1": 0.9, "beta2": 0.95, "clip": 1, "decay": 0.2, "eps": 1e-08, "final_lr": 0.1,
            "horizon": None, "lr": 0.006, "precision": "fp32", "schedule": schedule, "type": "Recipe",
            "warmup": 81920, "weight_decay": 0.1,
        },
        "seed": "@seed@", "evaluation": {"points": 32, "sequences": 96, "type": "Evaluation"}, "init": init,
        "transfer": None if init is None else {"blocks": "trained", "embed_std": None, "reinit": ["embeddings"],
                                               "type": "Transfer"},
    }  # fmt: skip


def _text_spec(size: str, tokens: int, schedule: str, init: Any = None) -> dict[str, Any]:
    return _spec(CORPUS, size, tokens, schedule, init)


def _warm_spec(band: Band, size: str, tokens: int, schedule: str) -> dict[str, Any]:
    source = {
        "band": list(band), "burn_in": 10, "grid": 8, "identity_bias": 0, "patch": 2, "rules": None,
        "start": "uniform", "states": 2, "stride": 1, "temperature": 0, "type": "NCA", "version": 2,
    }  # fmt: skip
    return _spec(source, size, tokens, schedule, None)


class _Writer:
    """Writes stages. What stages of a cell share is written out once and filled in for each."""

    def __init__(self, root: Path, study: str, schedule: str) -> None:
        self.root, self.study, self.schedule = root, study, schedule
        self.templates: dict[Any, tuple[str, str]] = {}
        self.entries: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.corpus = self._text()

    def _text(self) -> str:
        digest = hashlib.sha256(b"text").hexdigest()
        manifest = {
            "format": 1, "kind": "Text", "digest": digest, "spec": CORPUS, **_environment(), "status": "finished",
            "parents": {}, "contamination": 0, "dtype": "uint16", "vocab_size": 512, "wall_s": 22.0,
            "train": {"bytes": 9333735, "documents": 521, "tokens": 4333924},
            "validation": {"bytes": 324586, "documents": 14, "tokens": 147755},
        }  # fmt: skip
        self._publish(digest, {"manifest.json": json.dumps(manifest, indent=1)})
        entry = {"kind": "Text", "label": "text", "tokens": 0, "flops": 0, "parents": {}, "spec": CORPUS, "start": None}
        self.entries[digest] = json.dumps(entry, indent=1)
        return digest

    def train(
        self, key: Any, seed: int, spec: dict[str, Any], at: np.ndarray, loss: np.ndarray, init: str | None
    ) -> str:
        digest = hashlib.sha256(f"{key} {seed}".encode()).hexdigest()
        automata = spec["corpus"]["source"]["type"] == "NCA"
        if key not in self.templates:
            self.templates[key] = _templates(spec, self.corpus, automata, init is not None)
        manifest, entry = self.templates[key]
        last = float(loss[-1])
        fill = {
            '"@seed@"': f"{seed}", "@seed@": f"{seed}", '"@loss@"': repr(last), '"@bits@"': repr(0.6 * last),
            "@digest@": digest, "@init@": init or "",
        }  # fmt: skip
        for name, value in fill.items():
            manifest, entry = manifest.replace(name, value), entry.replace(name, value)
        self.entries[digest] = entry
        self.sizes[digest] = (spec["tokens"], _flops(spec))
        self._publish(digest, {"curve.jsonl": _curve(at, loss, automata), "manifest.json": manifest})
        return digest

    def point(self, arm: str, axes: dict[str, Any], chain: list[str], baseline: int | None) -> dict[str, Any]:
        return {
            "arm": arm, "axes": axes, "stage": chain[-1], "chain": chain, "tokens": [self.sizes[d][0] for d in chain],
            "flops": [self.sizes[d][1] for d in chain], "differs_in": [] if baseline is None else ["init", "transfer"],
            "baseline": baseline,
        }  # fmt: skip

    def register(self, arms: list[str], points: list[dict[str, Any]]) -> None:
        trained = [d for d in self.entries if d != self.corpus]
        plan = {
            "format": 1, "study": self.study, "question": "How much text do automata save?", "hash": "f" * 64,
            "baseline": "scratch", "arms": arms, "axes": ["size", "band", "budget", "seed"], "sesoi": 1.05,
            "schedule": self.schedule, "registered": "2026-01-02T03:00:00+00:00", "revisions": {},
            "promise": {
                "made": "2026-01-02T03:00:00+00:00", "tokens": sum(s[0] for s in self.sizes.values()),
                "flops": sum(s[1] for s in self.sizes.values()), "device_hours": 0.01 * len(trained), "price": 2.0,
                "money": 0.02 * len(trained), "storage_bytes": 1_000_000, "rate": "as measured",
                "stages": dict.fromkeys(trained, 0.01), "found": 0,
            },
            "points": points,
        }  # fmt: skip
        stages = ",\n".join(f'"{digest}": {entry}' for digest, entry in self.entries.items())
        directory = self.root / "studies" / self.study
        directory.mkdir(parents=True)
        text = json.dumps(plan, indent=1)
        (directory / "points.json").write_text(f'{text[:-2]},\n "stages": {{\n{stages}\n}}\n}}')

    def _publish(self, digest: str, contents: dict[str, str]) -> None:
        attempt = self.root / "stages" / digest / "20260102T030405-00000000"
        attempt.mkdir(parents=True)
        files = {}
        for name, text in contents.items():
            content = text.encode()
            (attempt / name).write_bytes(content)
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        done = {"attempt": attempt.name, "files": files, "finished": "2026-01-02T03:04:35+00:00"}
        (attempt.parent / "DONE").write_text(json.dumps(done, indent=1))


def _flops(spec: dict[str, Any]) -> int:
    width, depth = spec["model"]["width"], spec["model"]["depth"]
    body = depth * (4 * width**2 + 12 * width**2)
    return int(spec["tokens"] * (6 * body + 6 * width * 512 + 12 * depth * width * 256))


def _environment() -> dict[str, Any]:
    return {
        "commit": "a" * 40, "executed": "ray", "hardware": {"cpu": "a cpu", "gpu": None},
        "started": "2026-01-02T03:04:05+00:00",
        "versions": {"datasets": "5.2.0", "numba": "0.68.1", "numpy": "2.4.6", "python": "3.11.7", "ray": "2.60.0",
                     "tokenizers": "0.23.3", "torch": "2.13.0", "transformers": "5.23.0"},
    }  # fmt: skip


def _templates(spec: dict[str, Any], corpus: str, automata: bool, after: bool) -> tuple[str, str]:
    """The manifest of a stage, and what the plan says of it, as text."""
    parents = ({"init": "@init@"} if after else {}) | ({} if automata else {"tokens": corpus})
    body = spec["model"]["depth"] * 16 * spec["model"]["width"] ** 2
    held_out: dict[str, Any] = {"loss_nats": "@loss@", "accuracy": 0.3, "targets": 20352}
    if automata:
        held_out |= {
            "loss_bits_per_byte": None, "unigram_nats": 2.6, "copy_nats": 2.4, "ngram2_nats": 2.3,
            "copy_accuracy": 0.26, "loss_by_frame": [None, *np.linspace(2.4, 1.7, FRAMES - 1).tolist()],
            "accuracy_by_frame": [None, *[0.6] * (FRAMES - 1)],
        }  # fmt: skip
    else:
        held_out["loss_bits_per_byte"] = "@bits@"
    band = spec["corpus"]["source"].get("band")
    complexity = band and round(band[0] + 0.4 * (min(band[1], 0.7) - band[0]), 3)
    manifest = {
        "format": 1, "kind": "Train", "digest": "@digest@", "spec": spec, **_environment(), "status": "finished",
        "parents": parents, "start": None, "threads": 1, "world": 1, "vocab_size": 18 if automata else 512,
        "params": body + 512 * spec["model"]["width"], "params_body": body, "tokens": spec["tokens"],
        "flops": _flops(spec), "sequences": spec["tokens"] // 256, "sequence_hash": "00",
        "scales": {"blocks_std": 0.05, "embeddings_std": 0.075}, "setup_s": 1.0, "train_s": 25.0, "wait_s": 0.1,
        "first_batch_s": 0.5, "evaluate_s": 4.0, "checkpoint_s": 0.5,
        "acceptance": 0.34 if automata else None, "complexity": complexity,
        "generation_flops": 4000 * spec["tokens"] if automata else 0,
        "held_out": held_out, "wall_s": 32.0,
    }  # fmt: skip
    label = f"{'NCA' if automata else 'Text'} seed @seed@{' after NCA' if after else ''}"
    entry = {
        "kind": "Train", "label": label, "tokens": spec["tokens"], "flops": _flops(spec), "parents": parents,
        "spec": spec, "start": None,
    }  # fmt: skip
    return json.dumps(manifest, indent=1), json.dumps(entry, indent=1)


def _curve(at: np.ndarray, loss: np.ndarray, automata: bool) -> str:
    frames = f', "loss_by_frame": {[2.123456789012345] * FRAMES}, "accuracy_by_frame": {[0.6123456789] * FRAMES}'
    more = frames if automata else ""
    lines = []
    for i, (tokens, value) in enumerate(zip(at.tolist(), loss.tolist(), strict=True)):
        bits, induction = ("null", "null") if automata else (repr(0.6 * value), repr(1e-3 * i))
        train = "null" if i == 0 else repr(value)
        lines.append(
            f'{{"step": {i}, "tokens": {tokens}, "loss_nats": {value!r}, "loss_bits_per_byte": {bits}, '
            f'"accuracy": 0.30126953125, "induction_nats": {induction}, "train_loss_nats": {train}, '
            f'"grad_norm": 1.0123456, "lr": 0.0012345678, "tokens_per_s": 30123.456789, "mfu": 0.123456789, '
            f'"data_wait": 0.0123456789, "train_s": {i * 1.1}, "wait_s": 0.1, "wall_s": {i * 1.2}, '
            f'"device_s": {i * 1.2}, "memory_bytes": null{more}}}\n'
        )
    return "".join(lines)
