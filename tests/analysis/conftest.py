from pathlib import Path

import pytest

from .synthetic_store import Store, build


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store to fill."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only store with the study "demo"."""
    return build(tmp_path_factory.mktemp("demo"))
