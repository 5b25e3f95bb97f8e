"""The cluster files, offline: what Ray checks, and what it lets pass until money has been spent."""

import copy
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
Config = dict[str, Any]


CLOUDS = ["cluster.yaml", "clusters/gcp.yaml"]
FILES = [*CLOUDS, "clusters/on-premise.yaml"]


def load(name: str) -> Config:
    loaded: Config = yaml.safe_load((ROOT / name).read_text())
    return loaded


@pytest.fixture
def config() -> Config:
    return load("cluster.yaml")


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> Config:
    return load(request.param)


@pytest.fixture(params=FILES)
def every(request: pytest.FixtureRequest) -> Config:
    return load(request.param)


def check(config: Config) -> Config:
    """Ray's own check; the configuration with its defaults filled in."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    filled: Config = util.prepare_config(copy.deepcopy(config))
    util.validate_config(filled)
    return filled


def test_ray_accepts_it(cloud: Config) -> None:
    filled = check(cloud)
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


def test_the_head_only_drives_and_workers_come_and_go(cloud: Config) -> None:
    types = cloud["available_node_types"]
    head = types.pop(cloud["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert types
    for worker in types.values():
        assert worker["resources"]["GPU"] > 0 and worker["resources"]["CPU"] > worker["resources"]["GPU"]
        assert worker["min_workers"] == 0 and 0 < worker["max_workers"] <= cloud["max_workers"]


def test_the_mounts_hold_all_that_an_install_needs_and_nothing_else(every: Config) -> None:
    mounts = {Path(local): Path(remote) for remote, local in every["file_mounts"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {include.rstrip("*") for include in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert {str(local) for local in mounts} == packages | files | {"search_spaces"}
    for local, remote in mounts.items():
        assert (ROOT / local).exists()
        assert remote == Path("~/study") / local


def test_every_node_installs_the_tested_versions_and_sees_the_store(cloud: Config) -> None:
    (install,) = [command for command in cloud["setup_commands"] if "pip install" in command]
    assert "-c ~/study/constraints.txt" in install and install.endswith("-e ~/study")
    (mount,) = [command for command in cloud["initialization_commands"] if "mount -t" in command]
    assert "export NCA_STORE=/mnt/nca/" in "".join(cloud["setup_commands"]) and " /mnt/nca)" in mount
    assert not cloud.get("worker_setup_commands")


def test_the_commands_are_shell(every: Config, tmp_path: Path) -> None:
    commands = [command for key, value in every.items() if key.endswith("_commands") for command in value]
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    environment = next(command for command in every["setup_commands"] if "study.env <<" in command)
    script = f"{environment}\n. ~/study.env; echo $NCA_STORE $RAY_ADDRESS; command -v python"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    shell = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    said = subprocess.run(["bash", "-c", script], env=shell, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["/mnt/nca/store", "auto", str(tmp_path / "venv" / "bin" / "python")]


def test_the_script_that_tries_it_over_ssh_is_shell_and_uses_what_the_file_has() -> None:
    script = ROOT / "clusters" / "try_over_ssh.sh"
    subprocess.run(["bash", "-n", script], check=True)
    (filled,) = re.findall(r'replace\("([^"]*=8)"', script.read_text())
    assert filled in "".join(load("clusters/on-premise.yaml")["setup_commands"])


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


def test_machines_of_ones_own_are_a_head_that_only_drives_and_workers_that_stay() -> None:
    config = load("clusters/on-premise.yaml")
    (kind,) = check(config)["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])
    (start,) = [command for command in config["head_start_ray_commands"] if "--head" in command]
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(start.split())
    assert "export NCA_GROWS_TO=" in "".join(config["setup_commands"])


def kuberay() -> tuple[Config, Config]:
    """(claim, job)"""
    claim, job = yaml.safe_load_all((ROOT / "clusters" / "kuberay.yaml").read_text())
    return claim, job["spec"]


def test_the_job_of_kuberay_runs_a_study_on_pods_that_come_and_go() -> None:
    claim, spec = kuberay()
    cluster = spec["rayClusterSpec"]
    head, (group,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (0, 0, 8)
    assert cluster["enableInTreeAutoscaling"] and spec["shutdownAfterJobFinishes"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray=="))
    assert pinned == f"ray=={cluster['rayVersion']}"
    python, module, name, *arguments = spec["entrypoint"].split()
    assert (python, module, name) == ("python", "-m", "harness")
    args = parser().parse_args(arguments)
    assert (ROOT / args.target).exists()
    environment = yaml.safe_load(spec["runtimeEnvYAML"])
    assert environment["pip"] == load("clusters/runtime-env.yaml")["pip"]
    for pod in (head, group):
        pod = pod["template"]["spec"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert environment["env_vars"]["NCA_STORE"].startswith(f"{mount['mountPath']}/")
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_a_job_brings_the_code_that_it_needs_and_no_more(tmp_path: Path) -> None:
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    environment = load("clusters/runtime-env.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    wanted = {*needed, "harness/store.py", "search_spaces/smoke.py", "analysis/frame.py"}
    unwanted = {".venv/bin/python", ".git/config", "store/stages/x", "store.scratch/y", "tests/z.py", "chaos/log"}
    here = tmp_path / "project"
    for name in wanted | unwanted:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("")
    shutil.copy(ROOT / ".gitignore", here)
    packed = tmp_path / "packed.zip"
    packaging.create_package(str(here), packed, include_gitignore=True, excludes=environment["excludes"])
    with zipfile.ZipFile(packed) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files == {*wanted, ".gitignore"}
