"""Resume checkpoints: complete or passed over, the newest two kept."""

import json
from pathlib import Path

import pytest
import torch

from harness import resume

TENSORS = {"w": torch.arange(6.0).view(2, 3), "step": torch.tensor(3.0)}


def save(directory: Path, *steps: int) -> None:
    for step in steps:
        resume.save(directory, step, {name: t + step for name, t in TENSORS.items()}, {"rows": [step]})


def found(directory: Path) -> int | None:
    newest = resume.newest_state(directory)
    return None if newest is None else int(newest[1]["step"])


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, 7)
    newest = resume.newest_state(tmp_path)
    assert newest is not None
    place, state = newest
    assert (state["step"], state["rows"]) == (7, [7])
    tensors = resume.load_tensors(place)
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], t + 7) for name, t in TENSORS.items())
    assert resume.committed_step(tmp_path) == 7


def test_without_a_checkpoint_a_stage_begins(tmp_path: Path) -> None:
    assert resume.newest_state(tmp_path) is None
    assert resume.committed_step(tmp_path / "nowhere") == 0


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 2, 9, 10, 1000)
    assert [p.name for p in resume.newest_first(tmp_path)] == ["step-000001000", "step-000000010"]
    assert found(tmp_path) == 1000


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 3, 3)
    assert found(tmp_path) == 3


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "altered", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 3, 6)
    path = tmp_path / "step-000000006" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "altered" and file == "state.json":
        path.write_text(json.dumps({"step": 6}))
    else:
        path.write_bytes({"cut": content[:-3], "altered": content[:-1] + b"\xff", "empty": b""}[damage])
    assert found(tmp_path) == 3
    (tmp_path / "step-000000003" / "state.json").unlink()
    assert resume.committed_step(tmp_path) == 0


@pytest.mark.parametrize(
    "fails", ["safetensors.torch.save_file", "harness.resume.write_json", "harness.resume.os.replace"]
)
def test_a_save_that_is_cut_off_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    save(tmp_path, 3)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="cut off"):
        patch.setattr(fails, fail)
        save(tmp_path, 6)
    assert found(tmp_path) == 3
    save(tmp_path, 6)
    assert found(tmp_path) == 6
