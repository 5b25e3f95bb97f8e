"""Deaths are counted by what was achieved between them."""

import os
import time
from pathlib import Path

from harness.cluster import starts


def counts(directory: Path, *begun: tuple[str, int]) -> list[int]:
    return [starts.begin(directory, run, step, 1).count for run, step in begun]


def test_starts_at_one_step_are_counted(tmp_path: Path) -> None:
    assert counts(tmp_path, *[("a", 0)] * 6) == [1, 2, 3, 4, 5, 6]
    last = starts.last(tmp_path)
    assert last is not None and last.one_too_many


def test_a_committed_step_or_another_driver_counts_anew(tmp_path: Path) -> None:
    begun = [("a", 0), ("a", 0), ("a", 4), ("a", 4), ("b", 4), ("b", 4), ("b", 8)]
    assert counts(tmp_path, *begun) == [1, 2, 1, 2, 1, 2, 1]


def test_workers_that_came_are_no_death(tmp_path: Path) -> None:
    worlds = [1, 2, 4, 4, 3, 4, 4]
    assert [starts.begin(tmp_path, "a", 0, world).count for world in worlds] == [1, 1, 1, 2, 3, 3, 4]


def test_workers_that_were_replaced_are_told_so(tmp_path: Path) -> None:
    first = starts.begin(tmp_path, "a", 0, 1)
    assert not starts.replaced(tmp_path, first.token)
    second = starts.begin(tmp_path, "a", 0, 1)
    assert starts.replaced(tmp_path, first.token)
    assert not starts.replaced(tmp_path, second.token)
    (tmp_path / "start.json").unlink()  # a stage that is done leaves nothing, a file system in trouble neither
    assert not starts.replaced(tmp_path, second.token)


def test_a_stage_is_abandoned_when_neither_a_start_nor_a_live_line_is_new(tmp_path: Path) -> None:
    assert starts.abandoned(tmp_path)
    starts.begin(tmp_path, "a", 0, 1)
    assert not starts.abandoned(tmp_path)
    long_ago = time.time() - 2 * starts.ABANDONED_S
    os.utime(tmp_path / "start.json", (long_ago, long_ago))
    assert starts.abandoned(tmp_path)
    (tmp_path / "live.json").write_text("{}")
    assert not starts.abandoned(tmp_path)


def test_a_record_that_cannot_be_read_counts_anew(tmp_path: Path) -> None:
    starts.begin(tmp_path, "a", 0, 1)
    for damage in ("", "[]", '{"run": "a"}'):
        (tmp_path / "start.json").write_text(damage)
        assert starts.last(tmp_path) is None
        assert starts.begin(tmp_path, "a", 0, 1).count == 1
    assert starts.last(tmp_path / "nowhere") is None
