"""The Hugging Face hub: commits of its repositories, and streams of data sets that lie there or here."""

import functools
import re
from collections.abc import Iterator
from typing import Any

from harness.errors import InputError
from harness.sources import first_line, in_a_line


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit hash, which names one content for ever."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


@functools.lru_cache(maxsize=1024)
def commit(kind: str, name: str, revision: str | None, field: str) -> str:
    """The commit hash of `revision` (a branch, a tag, None for the default branch) of a repository on the hub.

    Raises InputError, naming `field`, for a repository or revision that is missing, gated or out of reach.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    try:
        info = api.repo_info(name, repo_type=kind, revision=revision, timeout=10)
        if getattr(info, "gated", False):
            api.auth_check(name, repo_type=kind)
    except errors.GatedRepoError as e:
        raise InputError(f"{field} = {name!r}: is gated; accept its terms on the hub and run `hf auth login`") from e
    except errors.RevisionNotFoundError as e:
        raise InputError(f"{field} = {name!r}: has no revision {revision!r}; name a branch or commit") from e
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as e:
        raise InputError(f"{field} = {name!r}: no such {kind} on the hub (or private); write a path as ./<path>") from e
    except Exception as e:  # connection, time-out, offline mode: the types belong to the client's transport
        why = "give revision=<commit hash>, or local files"
        raise InputError(f"{field} = {name!r}: the hub cannot be reached ({first_line(e)}); {why}") from e
    assert info.sha is not None
    return info.sha


def stream(place: str, config: str | None, split: str, revision: str | None) -> Any:
    """The streaming `datasets.IterableDataset` of the data set at `place`, a name on the hub or a directory.

    Raises InputError if it cannot be had.
    """
    import datasets

    try:
        return datasets.load_dataset(place, name=config, split=split, revision=revision, streaming=True)
    except Exception as e:  # a missing split or config, no data files, a loading script, the network
        way_out = "name a config, a split and a revision that it has"
        raise InputError(f"Text.dataset = {place!r}: cannot be loaded ({in_a_line(e)}); {way_out}") from e


def tables(place: str, stream: Any, rows: int) -> Iterator[Any]:
    """The `pyarrow.Table`s of about `rows` rows each of a streaming data set, whose name `place` is for messages.

    Raises InputError where a file is not of the schema that the data set has, or is damaged.
    """
    import pyarrow
    from datasets import exceptions, table

    try:
        yield from stream.with_format("arrow").iter(batch_size=rows)
    # A column of another type is a TypeError there, and damage inside a file an OSError without a number; the network's
    # errors are of other types, and come to an end.
    except (table.CastError, exceptions.DatasetGenerationError, pyarrow.ArrowInvalid, TypeError, OSError) as e:
        if isinstance(e, OSError) and (type(e) is not OSError or e.errno is not None):
            raise
        why, way_out = in_a_line(e), "name a revision or config whose files are whole and have one schema"
        if why.startswith("BatchSize must be greater than 0"):  # what datasets asks of a Parquet file without rows
            why = "a Parquet file without rows"
        raise InputError(f"Text.dataset = {place!r}: cannot be read ({why}); {way_out}") from e
