"""The store: a stage is whole or absent, the first attempt counts, damage is named."""

import json
import shutil
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.store import Store, write_json

FILES = {"manifest.json": b'{"status": "finished"}', "weights/model.safetensors": b"\x00" * 100, "empty": b""}


def attempt(store: Store, digest: str = "d1", files: dict[str, bytes] = FILES) -> Path:
    directory = store.begin(digest)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def published(store: Store) -> Path:
    """The attempt that counts for "d1"."""
    directory = attempt(store)
    assert store.publish("d1", directory)
    return directory


# ---- publishing


def test_an_attempt_counts_from_the_moment_it_is_published(store: Store) -> None:
    directory = attempt(store)
    assert store.open("d1") is None
    assert store.manifest("d1") is None
    assert store.done(["d1"]) == set()
    assert store.publish("d1", directory)
    assert store.open("d1") == directory
    assert store.manifest("d1") == {"status": "finished"}
    assert store.done(["d1", "d2"]) == {"d1"}
    assert store.damage("d1") == []


def test_done_names_the_attempt_and_every_file(store: Store, published: Path) -> None:
    done = json.loads((store.stage("d1") / "DONE").read_text())
    assert done["attempt"] == published.name
    assert set(done["files"]) == set(FILES)
    assert done["files"]["weights/model.safetensors"]["bytes"] == 100
    assert [p.name for p in store.stage("d1").iterdir() if p.is_file()] == ["DONE"]


def test_the_first_of_two_attempts_counts(store: Store) -> None:
    first, second = attempt(store), attempt(store, files={"manifest.json": b"{}"})
    assert first != second
    assert store.publish("d1", second)
    assert not store.publish("d1", first)
    assert store.open("d1") == second
    assert store.damage("d1") == []
    assert store.latest_attempt("d1") in (first, second)


@pytest.mark.parametrize("fails", ["harness.store.os.link", "harness.store.sha256", "harness.store.json.dump"])
def test_a_failure_while_publishing_leaves_nothing_published(
    store: Store, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    directory = attempt(store)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(fails, fail)
        store.publish("d1", directory)
    assert store.open("d1") is None
    assert [p for p in store.stage("d1").iterdir() if p.is_file()] == []  # and no leftovers
    assert store.publish("d1", directory)


def test_publishing_drops_the_resume_checkpoints(store: Store) -> None:
    store.resume("d1").mkdir(parents=True)
    store.resume("d2").mkdir(parents=True)
    store.publish("d1", attempt(store))
    assert not store.resume("d1").exists()
    assert store.resume("d2").exists()


def test_resume_checkpoints_lie_outside_the_record(store: Store) -> None:
    assert store.root not in store.resume("d1").parents


@settings(max_examples=15, deadline=None)
@given(content=st.recursive(st.none() | st.integers() | st.text(), lambda v: st.dictionaries(st.text(), v)))
def test_json_is_written_whole_or_not_at_all(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    place = tmp_path_factory.mktemp("json") / "value.json"
    write_json(place, content)
    with pytest.raises((ValueError, TypeError)):
        write_json(place, [content, float("nan")])
    assert json.loads(place.read_text()) == content
    assert [p.name for p in place.parent.iterdir()] == ["value.json"]


# ---- damage


def test_damage_names_files_that_are_missing_cut_or_altered(store: Store, published: Path) -> None:
    (published / "empty").unlink()
    (published / "manifest.json").write_bytes(FILES["manifest.json"][:-1])
    (published / "weights" / "model.safetensors").write_bytes(b"\x00" * 99 + b"\x01")
    assert store.damage("d1") == [
        "empty is missing",
        f"manifest.json has {len(FILES['manifest.json']) - 1} bytes instead of {len(FILES['manifest.json'])}",
        "weights/model.safetensors does not match its checksum",
    ]


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 99), bit=st.integers(0, 7))
def test_any_bit_that_flips_is_damage(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    directory = attempt(store)
    store.publish("d1", directory)
    content = bytearray(FILES["weights/model.safetensors"])
    content[position] ^= 1 << bit
    (directory / "weights" / "model.safetensors").write_bytes(content)
    assert store.damage("d1") == ["weights/model.safetensors does not match its checksum"]


def test_files_that_appear_later_are_no_damage(store: Store, published: Path) -> None:
    (published / "notes.txt").write_text("mine")
    assert store.damage("d1") == []


@pytest.mark.parametrize("content", [b"", b'{"attempt": "2026', b"\xff\xfe\x00", b"{}", b"[]", b"null"])
def test_an_unreadable_done_is_damage_and_no_artifact(store: Store, published: Path, content: bytes) -> None:
    (store.stage("d1") / "DONE").write_bytes(content)
    assert store.open("d1") is None
    assert store.damage("d1") == ["DONE is not readable"]


def test_a_stage_that_was_never_published_has_no_damage(store: Store) -> None:
    assert store.damage("d1") == []
    attempt(store)
    assert store.damage("d1") == []


def test_a_lost_attempt_is_damage(store: Store, published: Path) -> None:
    shutil.rmtree(published)
    assert len(store.damage("d1")) == len(FILES)


def test_what_is_set_aside_is_kept_and_no_longer_counts(store: Store, published: Path) -> None:
    (published / "empty").unlink()
    aside = store.set_aside("d1")
    assert store.open("d1") is None
    assert store.damage("d1") == []
    assert (aside / published.name / "manifest.json").read_bytes() == FILES["manifest.json"]
    again = attempt(store)
    assert store.publish("d1", again)
    assert store.open("d1") == again
    assert store.set_aside("d1") != aside


# ---- the place


def test_a_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b")
    store.check()
    assert list(store.root.iterdir()) == []  # no probe stays


def test_a_store_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^store = '.*file/store': cannot be written \(.*\); choose --store$"):
        Store(tmp_path / "file" / "store").check()
    with pytest.raises(InputError, match=r"^store = '.*file': cannot be written"):
        Store(tmp_path / "file").check()


def test_a_store_that_is_a_file_has_no_stages(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Store(tmp_path / "file").open("d1") is None
    assert Store(tmp_path / "file").done(["d1"]) == set()


def test_a_store_without_room_is_refused_with_the_numbers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(free=10**9)
    monkeypatch.setattr("harness.store.shutil.disk_usage", lambda path: usage)
    store.check(10**9)
    with pytest.raises(InputError, match=r"1\.00 GB are free and this study needs about 2\.50 GB"):
        store.check(2_500_000_000)
