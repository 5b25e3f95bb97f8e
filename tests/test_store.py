"""The store: a stage is whole or absent, the first attempt counts, damage is named."""

import importlib.util
import json
import shutil
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.store import KNOWN, Store, write_json
from harness.url import Url, UrlError, place
from tests.object_store import Buckets

FILES = {"manifest.json": b'{"status": "finished"}', "weights/model.safetensors": b"\x00" * 100, "empty": b""}


def attempt(store: Store, digest: str = "d1", files: dict[str, bytes] = FILES) -> Path:
    directory = store.begin(digest)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(params=["directory", "s3"])
def either(request: pytest.FixtureRequest) -> Store:
    """A store in a directory, and one in a bucket."""
    return request.getfixturevalue("store" if request.param == "directory" else "remote")


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
    assert [p.name for p in Path(store.stage("d1")).iterdir() if p.is_file()] == ["DONE"]


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
    assert [p for p in Path(store.stage("d1")).iterdir() if p.is_file()] == []  # and no leftovers
    assert store.publish("d1", directory)


def test_publishing_drops_the_resume_checkpoints(store: Store) -> None:
    store.resume("d1").mkdir(parents=True)
    store.resume("d2").mkdir(parents=True)
    store.publish("d1", attempt(store))
    assert not store.resume("d1").exists()
    assert store.resume("d2").exists()


def test_resume_checkpoints_lie_outside_the_record(store: Store) -> None:
    assert store.root not in Path(store.resume("d1")).parents


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
    assert list(Path(store.root).iterdir()) == []  # no probe stays


def test_a_store_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^store = '.*file/store': cannot be written \(.*\); choose --store$"):
        Store(tmp_path / "file" / "store").check()
    with pytest.raises(InputError, match=r"^store = '.*file': cannot be written"):
        Store(tmp_path / "file").check()


def test_a_file_system_without_hard_links_is_refused_before_anything_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("harness.store.os.link", link)
    with pytest.raises(InputError, match=r"its file system has no hard links.*; choose --store$"):
        store.check()
    assert list(Path(store.root).iterdir()) == []


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


# ---- a directory and an object store alike


def test_a_stage_is_published_read_and_listed_alike(either: Store) -> None:
    either.check()
    directory = attempt(either)
    assert not either.has("d1") and either.open("d1") is None and either.read("d1", "empty") is None
    assert either.done(["d1"]) == set()
    assert either.publish("d1", directory)
    assert either.manifest("d1") == {"status": "finished"}
    assert either.read("d1", "empty") == b"" and either.read("d1", "none") is None
    assert either.done(["d1", "d2"]) == {"d1"}
    assert either.damage("d1") == []
    place = either.open("d1")
    assert place is not None
    found = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert found == FILES


def test_what_is_missing_or_cut_is_damage_and_is_set_aside_alike(either: Store) -> None:
    directory = attempt(either)
    either.publish("d1", directory)
    place = either.stage("d1") / directory.name
    (place / "empty").unlink()
    (place / "manifest.json").write_bytes(b"{}")
    size = len(FILES["manifest.json"])
    assert either.damage("d1") == ["empty is missing", f"manifest.json has 2 bytes instead of {size}"]
    aside = either.set_aside("d1")
    assert not either.has("d1") and either.damage("d1") == []
    assert (aside / directory.name / "manifest.json").read_bytes() == b"{}"
    assert either.publish("d1", attempt(either))
    assert either.damage("d1") == []


def test_of_publishers_that_race_one_wins_alike(either: Store) -> None:
    attempts = [attempt(either, files={"manifest.json": json.dumps({"n": n}).encode()}) for n in range(6)]
    with ThreadPoolExecutor(len(attempts)) as pool:
        won = list(pool.map(lambda a: either.publish("d1", a), attempts))
    assert sum(won) == 1
    assert either.manifest("d1") == {"n": won.index(True)}
    place = either.open("d1")
    assert place is not None and place.name == attempts[won.index(True)].name


def test_publishing_drops_the_resume_checkpoints_alike(either: Store) -> None:
    for digest in ("d1", "d2"):
        either.resume(digest).mkdir(parents=True)
        (either.resume(digest) / "live.json").write_bytes(b"{}")
    either.publish("d1", attempt(either))
    assert not either.resume("d1").exists()
    assert either.resume("d2").exists()


# ---- an object store


def elsewhere(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """As if this were another machine."""
    monkeypatch.setenv("NCA_CACHE", str(directory))
    KNOWN.clear()


def test_another_machine_fetches_a_stage_once_and_its_manifest_without_it(
    remote: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote.publish("d1", attempt(remote))
    elsewhere(monkeypatch, tmp_path / "other")
    assert remote.manifest("d1") == {"status": "finished"}
    assert not (tmp_path / "other").exists()
    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(lambda _: remote.open("d1"), range(4)))
    (place,) = places
    assert place is not None and tmp_path / "other" in place.parents
    assert (place / "weights" / "model.safetensors").read_bytes() == FILES["weights/model.safetensors"]
    assert [p.name for p in place.parent.iterdir() if p.is_dir()] == [place.name]


def test_what_differs_from_its_checksum_is_not_opened(
    remote: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = attempt(remote)
    remote.publish("d1", directory)
    (remote.stage("d1") / directory.name / "weights/model.safetensors").write_bytes(b"\x01" * 100)
    elsewhere(monkeypatch, tmp_path / "other")
    with pytest.raises(OSError, match=r"model.safetensors: does not match its checksum; if it stays so, remove s3://"):
        remote.open("d1")
    assert not [p for p in (tmp_path / "other").rglob("*") if p.is_dir() and p.name == directory.name]


@pytest.mark.parametrize("size", [3000, 30_000])
def test_a_connection_that_is_lost_while_publishing_leaves_nothing_published(
    bucket: Buckets, remote: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    files = FILES | {"weights/model.safetensors": b"\x07" * 40_000}
    directory = attempt(remote, files=files)
    with bucket.proxy.cut_after(size), pytest.raises(OSError, match="cannot be reached"):
        remote.publish("d1", directory)
    assert not remote.has("d1")
    assert not (remote.stage("d1") / "DONE").exists()
    assert remote.publish("d1", directory)
    elsewhere(monkeypatch, tmp_path / "other")
    place = remote.open("d1")
    assert place is not None and (place / "weights" / "model.safetensors").read_bytes() == b"\x07" * 40_000


def test_a_connection_that_comes_back_is_no_failure(
    bucket: Buckets, remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.copies.WAITS_S", (2.0, 5.0))
    directory = attempt(remote)
    with bucket.proxy.cut_after(500), ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(remote.publish, "d1", directory)
        time.sleep(1.0)
        bucket.proxy.budget = None
        assert publishing.result()
    assert remote.damage("d1") == []


def test_a_marker_whose_answer_was_lost_is_ones_own(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    directory, create = attempt(remote), Url.create
    lost: list[bool] = []

    def lose_the_answer(place: Url, content: bytes) -> bool:
        created = create(place, content)
        if not lost:
            lost.append(created)
            raise UrlError("the connection was reset")
        return created

    monkeypatch.setattr(Url, "create", lose_the_answer)
    assert remote.publish("d1", directory)
    assert lost == [True] and remote.has("d1")


def test_many_stages_are_listed_in_few_requests(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [f"{n:064x}" for n in range(40)]
    for digest in digests[::2]:
        (remote.stage(digest) / "DONE").write_bytes(b'{"attempt": "a", "files": {}}')
        (remote.stage(digest) / "a" / "manifest.json").write_bytes(b'{"status": "finished"}')
    calls: list[str] = []
    for name in ("read_bytes", "find", "exists", "stat"):
        method = getattr(Url, name)

        def counted(url: Url, method: Any = method) -> Any:
            calls.append(method.__name__)
            return method(url)

        monkeypatch.setattr(Url, name, counted)
    assert remote.done(digests) == set(digests[::2])
    assert calls == ["find"]
    remote.read_ahead(digests, "manifest.json")
    assert all(remote.manifest(d) is not None for d in digests[::2])
    assert calls == ["find", "find"]


@pytest.mark.parametrize(
    ("root", "line"),
    [
        ("s3://no-such-bucket/prefix", "there is no such bucket; make it or choose --store"),
        ("s3://studies", "name a bucket and a prefix in it: s3://BUCKET/PREFIX"),
        ("ftp://host/prefix", "use a path, or a URL that begins with s3:// or gs://"),
        ("gs://bucket/prefix", "needs a package more; pip install 'nca-scaling-harness[gcs]'"),
    ],
)
def test_a_place_that_is_none_is_refused_in_one_line(bucket: Buckets, root: str, line: str) -> None:
    if root.startswith("gs:") and importlib.util.find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is installed")
    with pytest.raises(InputError) as refused:
        Store(place(root)).check()
    assert str(refused.value).startswith(f"store = '{root}") and str(refused.value).endswith(f"': {line}")


def test_the_store_s_clock_tells_how_old_its_files_are(either: Store) -> None:
    either.check()
    file = either.resume("d1") / "live.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    assert abs(either.clock() - file.stat().st_mtime) < 3
