"""cluster.yaml, offline: what Ray checks, and what it lets pass until money has been spent."""

import copy
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
Config = dict[str, Any]


@pytest.fixture
def config() -> Config:
    loaded: Config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def check(config: Config) -> Config:
    """Ray's own check; the configuration with its defaults filled in."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    filled: Config = util.prepare_config(copy.deepcopy(config))
    util.validate_config(filled)
    return filled


def test_ray_accepts_it(config: Config) -> None:
    filled = check(config)
    assert filled["available_node_types"]["gpu"]["max_workers"] > 0
    assert filled["head_node_type"] == "head"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: c.update(max_wokers=3), "max_wokers"),
        (lambda c: c["available_node_types"]["gpu"].update(minworkers=1), "minworkers"),
        (lambda c: c["provider"].pop("type"), "type"),
        (lambda c: c.pop("head_node_type"), "head_node_type"),
        (lambda c: c.update(head_node_type="haed"), "head_node_type"),
        (lambda c: c.update(max_workers="many"), "many"),
        (lambda c: c["available_node_types"]["gpu"].update(min_workers=99), "max_workers"),
        (lambda c: c.update(rsync_exclude="**/store"), "store"),
    ],
)
def test_a_typo_is_refused(config: Config, break_it: Callable[[Config], object], message: str) -> None:
    break_it(config)
    with pytest.raises(Exception, match=message):  # a ValueError, a KeyError or jsonschema's own
        check(config)


def test_what_ray_would_find_out_too_late(config: Config) -> None:
    assert config["provider"]["region"]
    zones = config["provider"]["availability_zone"].split(",")
    assert all(zone.startswith(config["provider"]["region"]) for zone in zones)
    assert f".efs.{config['provider']['region']}." in "".join(config["initialization_commands"])
    types = config["available_node_types"]
    assert all(
        t["resources"] and t["node_config"]["InstanceType"] and t["node_config"]["ImageId"] for t in types.values()
    )


def test_the_head_only_drives_and_workers_come_and_go(config: Config) -> None:
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert types
    for worker in types.values():
        assert worker["resources"]["GPU"] > 0 and worker["resources"]["CPU"] > worker["resources"]["GPU"]
        assert worker["min_workers"] == 0 and 0 < worker["max_workers"] <= config["max_workers"]


def test_the_mounts_hold_all_that_an_install_needs_and_nothing_else(config: Config) -> None:
    mounts = {Path(local): Path(remote) for remote, local in config["file_mounts"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {include.rstrip("*") for include in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert {str(local) for local in mounts} == packages | files | {"search_spaces"}
    for local, remote in mounts.items():
        assert (ROOT / local).exists()
        assert remote == Path("~/study") / local


def test_every_node_installs_the_tested_versions_and_sees_the_store(config: Config) -> None:
    (install,) = [command for command in config["setup_commands"] if "pip install" in command]
    assert "-c ~/study/constraints.txt" in install and install.endswith("-e ~/study")
    (mount,) = [command for command in config["initialization_commands"] if "mount -t" in command]
    assert "export NCA_STORE=/mnt/nca/" in "".join(config["setup_commands"]) and " /mnt/nca)" in mount
    assert not config.get("head_setup_commands") and not config.get("worker_setup_commands")


def test_the_commands_are_shell(config: Config, tmp_path: Path) -> None:
    for command in config["initialization_commands"] + config["setup_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    environment = next(command for command in config["setup_commands"] if "study.env <<" in command)
    script = f"{environment}\n. ~/study.env; echo $NCA_STORE $RAY_ADDRESS; command -v python"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    shell = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    said = subprocess.run(["bash", "-c", script], env=shell, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["/mnt/nca/store", "auto", str(tmp_path / "venv" / "bin" / "python")]


@pytest.mark.parametrize("name", ["smoke", "complexity"])
def test_the_entry_runs_from_anywhere_as_ray_submit_runs_it(name: str, tmp_path: Path) -> None:
    """`ray submit` copies one file to the head's home and runs Python on it, where the project is installed."""
    entry = shutil.copy(ROOT / "harness" / "__main__.py", tmp_path)
    (tmp_path / "study").symlink_to(ROOT)
    home = {**os.environ, "PYTHONPATH": str(ROOT), "NCA_STORE": str(tmp_path / "store")}
    command = [sys.executable, entry, "plan", f"study/search_spaces/{name}.py"]
    said = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "distinct" in said.stdout
    assert not (tmp_path / "store").exists()
