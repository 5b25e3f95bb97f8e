"""A small synthetic store in the layout that the harness writes, with a speedup that is known."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

GRID = np.unique(np.round(np.r_[np.geomspace(0.01, 0.1, 8), np.linspace(0.1, 1, 25)[1:]], 6))


def law(tokens: np.ndarray) -> np.ndarray:
    """A validation curve (nats) of text tokens: a power law above an irreducible loss."""
    return 2.0 + (tokens / 1e6) ** -0.3


class Store:
    """Builds stages and plans; `train` returns a digest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages: dict[str, dict[str, Any]] = {}
        self.points: list[dict[str, Any]] = []

    def train(
        self, name: str, tokens: int, loss: Any, *, at: Any = None, init: str | None = None, done: bool = True,
        schedule: str = "cosine", horizon: int | None = None, status: str = "finished", first: float = 8.0,
        flops: int | None = None, generation_flops: int = 0, held_out: dict[str, Any] | None = None,
        threads: int = 1, frames: Any = None, induction: Any = None,
    ) -> str:  # fmt: skip
        digest = hashlib.sha256(name.encode()).hexdigest()
        flops = 1000 * tokens if flops is None else flops
        spec = {"type": "Train", "tokens": tokens, "recipe": {"schedule": schedule, "horizon": horizon, "lr": 0.006}}
        self.stages[digest] = {
            "kind": "Train", "label": name, "tokens": tokens, "flops": flops, "spec": spec,
            "parents": {"init": init} if init else {},
        }  # fmt: skip
        if not done:
            return digest
        at = np.round(GRID * tokens) if at is None else np.asarray(at)
        losses = [None if not np.isfinite(v) else float(v) for v in np.r_[first, np.asarray(loss, float)]]
        rows = [
            {"step": i, "tokens": int(t), "loss_nats": v, "loss_bits_per_byte": None if v is None else v * 0.5,
             "accuracy": 0.3, "induction_nats": None if induction is None else float(induction * t / tokens),
             "train_loss_nats": None if i == 0 else v, "lr": 0.001, "grad_norm": 1.0, "tokens_per_s": 3e4,
             "data_wait": 0.01, "wall_s": i * 1.0, "device_s": i * 0.9}
            for i, (t, v) in enumerate(zip(np.r_[0, at], losses, strict=True))
        ]  # fmt: skip
        manifest = {
            "format": 1, "kind": "Train", "digest": digest, "spec": spec, "parents": {"init": init} if init else {},
            "status": status, "executed": "in_process", "commit": "abc1234",
            "versions": {"python": "3.11.2", "torch": "2.13.0", "ray": "2.60.0"},
            "hardware": {"cpu": "a cpu", "gpu": None}, "threads": threads, "world": 1,
            "started": "2026-01-02T03:04:05+00:00", "wall_s": 30.0, "train_s": 25.0, "evaluate_s": 4.0,
            "data_wait_s": 0.3, "setup_s": 1.0, "tokens": tokens, "vocab_size": 512, "params": 140_000,
            "params_body": 107_000, "flops": flops, "generation_flops": generation_flops, "sequences": tokens // 256,
            "sequence_hash": "00", "scales": {"embeddings_std": 0.075, "blocks_std": 0.05}, "acceptance": None,
            "held_out": held_out or {"loss_nats": losses[-1], "loss_bits_per_byte": None if losses[-1] is None else
                                     losses[-1] * 0.5, "accuracy": 0.3, "targets": 1000},
        }  # fmt: skip
        contents = {
            "manifest.json": json.dumps(manifest).encode(),
            "curve.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        }
        if frames is not None:
            file = io.BytesIO()
            np.savez(file, frames=frames, scores=np.linspace(0.1, 0.2, len(frames)))
            contents["frames.npz"] = file.getvalue()
        self._publish(digest, contents)
        return digest

    def evaluate(
        self, name: str, model: str, spec: dict[str, Any], scores: dict[str, Any], problems: int, done: bool = True
    ) -> str:
        """An evaluation of the stage `model`; `spec` and `scores` as the harness writes them."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        parents = {"model": model}
        self.stages[digest] = {
            "kind": "Evaluate", "label": name, "tokens": 0, "flops": 0, "spec": spec, "parents": parents,
        }  # fmt: skip
        manifest = {
            "format": 1, "kind": "Evaluate", "digest": digest, "spec": spec, "parents": parents, "status": "finished",
            "executed": {"engine": spec["engine"]}, "commit": "abc1234", "versions": {"python": "3.11.2"},
            "hardware": {"cpu": "a cpu", "gpu": None}, "started": "2026-01-02T03:04:05+00:00", "wall_s": 3.0,
            "problems": problems, "scores": scores,
        }  # fmt: skip
        if done:
            self._publish(digest, {"manifest.json": json.dumps(manifest).encode()})
        return digest

    def _publish(self, digest: str, contents: dict[str, bytes]) -> None:
        attempt = self.root / "stages" / digest / "attempt-1"
        attempt.mkdir(parents=True)
        for file, content in contents.items():
            (attempt / file).write_bytes(content)
        files = {f: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for f, c in contents.items()}
        (attempt.parent / "DONE").write_text(json.dumps({"attempt": "attempt-1", "files": files, "finished": "now"}))

    def point(
        self, arm: str, axes: dict[str, Any], chain: list[str], baseline: int | None = None,
        benchmarks: dict[str, str] | None = None,
    ) -> int:  # fmt: skip
        more: dict[str, Any] = {"benchmarks": benchmarks} if benchmarks else {}
        self.points.append(
            more |
            {
                "arm": arm, "axes": axes, "stage": chain[-1], "chain": chain,
                "tokens": [self.stages[d]["tokens"] for d in chain], "flops": [self.stages[d]["flops"] for d in chain],
                "differs_in": [] if baseline is None else ["init", "transfer"], "baseline": baseline,
            }
        )  # fmt: skip
        return len(self.points) - 1

    def register(self, study: str, axes: list[str], schedule: str = "cosine", baseline: str = "scratch") -> Path:
        arms = list(dict.fromkeys(p["arm"] for p in self.points))
        plan = {
            "format": 1, "study": study, "question": "Does a warm-up on automata save text?", "hash": "f" * 64,
            "registered": "2026-01-02T03:00:00+00:00", "baseline": baseline, "arms": arms, "axes": axes, "sesoi": 1.05,
            "schedule": schedule, "points": self.points, "stages": self.stages,
        }  # fmt: skip
        path = self.root / "studies" / study / "points.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan))
        return self.root


LEARNED = {
    "loss_nats": 1.9, "loss_bits_per_byte": None, "accuracy": 0.6, "targets": 1000, "unigram_nats": 2.6,
    "copy_nats": 2.4, "ngram2_nats": 2.3, "copy_accuracy": 0.26,
    "loss_by_frame": [None, *np.linspace(2.4, 1.7, 12).tolist()], "accuracy_by_frame": [None, *[0.6] * 12],
}  # fmt: skip


def build(root: Path, speedup: float = 1.5, seeds: int = 5, noise: float = 0.006, schedule: str = "wsd") -> Path:
    """The study "demo": scratch, nca (true speedup `speedup`, two bands), a longer scratch and a permuted control."""
    store, rng = Store(root), np.random.default_rng(0)
    text, warm_tokens = 1_000_000, 200_000
    grid = np.round(GRID * text)
    scratch, warm = {}, {}
    frames = rng.integers(0, 2, (4, 10, 8, 8)).astype(np.uint8)
    for seed in range(seeds):
        shared = rng.normal(0, noise)

        def bumps(shared: float = shared) -> float:
            return shared + rng.normal(0, noise / 2)

        digest = store.train(f"scratch {seed}", text, law(grid) + bumps(), schedule=schedule, induction=0.003)
        scratch[seed] = store.point("scratch", {"seed": seed}, [digest])
        for band, factor in (([0.2, 0.3], speedup), ([0.3, 0.4], 1.0)):
            held_out = LEARNED | {"loss_nats": 1.9 + rng.normal(0, noise)}
            warm[seed] = store.train(
                f"warm {band} {seed}", warm_tokens, np.linspace(2.8, 1.9, len(GRID)), held_out=held_out,
                generation_flops=10_000_000, frames=frames, schedule=schedule,
            )  # fmt: skip
            digest = store.train(
                f"nca {band} {seed}", text, law(grid * factor) + bumps(), init=warm[seed], schedule=schedule,
                induction=-0.3,
            )  # fmt: skip
            store.point("nca", {"band": band, "seed": seed}, [warm[seed], digest], scratch[seed])
        longer = np.round(GRID * 1_200_000)
        digest = store.train(f"longer {seed}", 1_200_000, law(longer) + bumps(), schedule=schedule)
        store.point("scratch_longer", {"seed": seed}, [digest], scratch[seed])
    return store.register("demo", ["band", "seed"], schedule)
