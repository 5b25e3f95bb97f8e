"""The mirror in Weights & Biases: what it has, and that no stage waits for one that does not work."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import stages
from harness.specs import Train, digest
from harness.store import Store
from harness.tracking import Tracker, run_id, trouble
from harness.worker import Options, Worker


@pytest.fixture(autouse=True)
def fresh_wandb() -> Iterator[None]:
    """It reads its environment once a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def test_a_stage_names_its_study_its_parents_and_its_arms(
    generated: Train, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    stages.run_here(generated, store)
    after = replace(generated, seed=6).after(generated)
    options = Options(wandb="a-project", study="a study", arms={digest(after): ("first arm", "second arm")})
    manifest = stages.run_here(after, store, Worker(options=options))
    assert manifest["notes"] == [] and capfd.readouterr().err == ""
    (logged,) = tmp_path.glob(f"wandb/offline-run-*/run-{run_id(digest(after))}.wandb")
    text = logged.read_bytes()
    for word in (
        "a study",
        run_id(digest(generated)),
        digest(after),
        "second arm",
        "final/loss_nats",
        "warmup",
    ):
        assert word.encode() in text, word


@pytest.mark.parametrize("how", ["no key", "a bad key", "no server"])
def test_trouble_is_told_once_for_all_stages(
    generated: Train, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of whoever runs this
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("harness.tracking.INIT_S", 2)
    if how != "no key":
        monkeypatch.setenv("WANDB_API_KEY", "short" if how == "a bad key" else 40 * "a")
    said = tmp_path / "scratch" / "no-wandb.txt"
    assert trouble(said) is None
    options = Options(wandb="a-project", wandb_trouble=said)
    manifest = stages.run_here(generated, store, Worker(options=options))
    assert manifest["status"] == "finished"
    assert [note for note in manifest["notes"] if note.startswith("no Weights & Biases: ")] == [trouble(said)]
    second = Tracker(replace(generated, seed=6), options)
    assert second.run is None and second.failure is None
