"""Resume checkpoints: complete or passed over, the newest two kept."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import parallel, resume
from harness.errors import InputError

TENSORS = {"weights.w": torch.arange(6.0).view(2, 3), "exp_avg.w": torch.full((2, 3), 3.0)}


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with parallel.process_group(1):
        yield


def save(directory: Path, *steps: int, address: str = "a stage") -> list[str | None]:
    """Save checkpoints one after another; returns what each failed with."""
    saver, failures = resume.Saver(address, 0, 1, "cpu"), []
    for step in steps:
        tensors = {name: t + step for name, t in TENSORS.items()}
        saver.save(directory, step, tensors, {"rows": [step]})
        for t in tensors.values():
            t.zero_()  # training goes on while the checkpoint is written
        saver.wait()
        failures.append(saver.failure)
    saver.close()
    return failures


def found(directory: Path) -> int:
    return resume.newest(directory, "a stage").step


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    assert save(tmp_path, 7) == [None]
    place, state, damaged = resume.newest(tmp_path, "a stage")
    assert place is not None and damaged == []
    assert (state["step"], state["rows"]) == (7, [7])
    tensors = {name: torch.zeros_like(t) for name, t in TENSORS.items()}
    resume.load(place, tensors)
    assert all(torch.equal(tensors[name], t + 7) for name, t in TENSORS.items())


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    save(tmp_path, 7)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}


def test_without_a_checkpoint_a_stage_begins(tmp_path: Path) -> None:
    assert resume.newest(tmp_path, "a stage").place is None
    assert found(tmp_path / "nowhere") == 0


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 2, 9, 10, 1000)
    assert [p.name for p in resume.newest_first(tmp_path)] == ["step-000001000", "step-000000010"]
    assert found(tmp_path) == 1000


def test_a_step_can_be_saved_again_and_what_was_there_is_not_overwritten(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (tmp_path / "step-000000003" / "state.json").write_text("damaged")
    save(tmp_path, 3)
    assert found(tmp_path) == 3
    (aside,) = tmp_path.glob("replaced-step-000000003-*")
    assert (aside / "state.json").read_text() == "damaged"


@pytest.mark.parametrize("file", ["state.json", "shard-00001-model-00001-of-00001.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "altered", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 3, 6)
    path = tmp_path / "step-000000006" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "altered" and file == "state.json":
        path.write_text(json.dumps({"step": 6}))
    else:
        path.write_bytes({"cut": content[:-3], "altered": content[:-1] + b"\xff", "empty": b""}[damage])
    newest = resume.newest(tmp_path, "a stage")
    assert newest.step == 3
    assert len(newest.damaged) == 1 and newest.damaged[0].startswith("checkpoint step-000000006 is damaged (")
    (tmp_path / "step-000000003" / "state.json").unlink()
    assert found(tmp_path) == 0


def test_a_checkpoint_of_another_stage_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 3, address="another")
    with pytest.raises(
        InputError, match=r"^checkpoint = .*step-000000003': is of stage another, not of a stage; remove"
    ):
        resume.newest(tmp_path, "a stage")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Any]:
    """Files of more than 64 bytes cannot be written, as on a full disk, until it is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    save(tmp_path, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    yield make_room
    make_room()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, full_disk: Any) -> None:
    (failure,) = save(tmp_path, 6)
    full_disk()
    assert failure is not None and failure.startswith("no checkpoint at step 6: OSError: [Errno 27] File too large")
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000003"]
    assert found(tmp_path) == 3
    assert save(tmp_path, 6) == [None]
    assert found(tmp_path) == 6
