"""A cluster file, held against what would otherwise be found out when it costs money; reads this machine alone."""

import contextlib
import copy
import importlib.util
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import aws, kuberay
from harness.cluster.growth import GROWS_TO, largest, parse
from harness.errors import InputError

Config = Mapping[str, Any]

PROVIDER_NEEDS = {
    "aws": ("region",),
    "gcp": ("project_id", "region", "availability_zone"),
    "azure": ("location", "resource_group"),
    "local": ("head_ip", "worker_ips"),
}
"""Ray's schema lets these be missing."""
MACHINE = {"aws": "InstanceType", "gcp": "machineType", "azure": "azure_arm_parameters"}
"""The field of a node_config without which no machine starts; Ray's schema knows nothing of a node_config."""
LIBRARY = {"aws": "boto3", "gcp": "googleapiclient", "azure": "azure.mgmt.compute"}
CREDENTIALS = {
    "aws": (
        ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ("~/.aws/credentials", "~/.aws/config"),
        "an instance profile may provide them",
    ),
    "gcp": (
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        ("~/.config/gcloud/application_default_credentials.json",),
        "the machine's service account may provide them",
    ),
}
"""Where they lie: environment, files, and what else may be."""


@dataclass(frozen=True)
class Checked:
    """What a cluster file is, and what is wrong with it."""

    wrong: tuple[str, ...]
    """One line each: the field, its value and the way out."""
    notes: tuple[str, ...]
    nodes: tuple[str, ...]
    """One line for every kind of node."""
    grows_to: dict[str, float]
    """The most that it offers to stages; empty where that is not known."""


def check(file: Path) -> Checked:
    """Raises InputError where `file` is no YAML or nothing of Ray's."""
    try:
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
    except OSError as e:
        raise InputError(f"cluster file = {str(file)!r}: {e.strerror}") from e
    except yaml.YAMLError as e:
        raise InputError(f"cluster file = {str(file)!r}: no YAML: {' '.join(str(e).split())}") from e
    left = tuple(f"{path} = {value!r}: replace CHANGE" for d in documents for path, value in unchanged(d))
    kinds = {d.get("kind") for d in documents if isinstance(d, dict)}
    try:
        if kinds & {*kuberay.KINDS}:
            wrong, nodes, grows_to = kuberay.check(documents)
            return Checked((*left, *wrong), (), nodes, grows_to)
        if len(documents) == 1 and "provider" in documents[0]:
            return of_ray(documents[0], left)
    except (AttributeError, IndexError, KeyError, TypeError) as e:
        raise InputError(f"cluster file = {str(file)!r}: not laid out as Ray wants it ({type(e).__name__}: {e})") from e
    raise InputError(f"cluster file = {str(file)!r}: neither a cluster file of Ray nor a RayJob of KubeRay")


def of_ray(config: Config, left: tuple[str, ...] = ()) -> Checked:
    """A cluster file for `ray up`; `left` is what is wrong with it already."""
    wrong = [*left, *provider(config), *missing_files(config)]
    try:
        filled = by_ray(config)
    except ValueError as e:
        return Checked((*wrong, str(e)), (), (), {})
    kind = config["provider"].get("type")
    shell = "\n".join(str(c) for c in filled["setup_commands"])
    grows_to: dict[str, float] = {}
    if kind == "local":
        wrong += local(filled)
        if said := re.search(rf"{GROWS_TO}=(\S+)", shell):
            grows_to = parse(said[1])
    else:
        wrong += node_types(config)
        grows_to = largest(filled)
        if not any(grows_to.get(name) for name in ("CPU", "GPU")) and not wrong:
            wrong.append(f"max_workers = {config.get('max_workers')!r}: no node that offers CPUs can ever come")
    notes = [*credentials(kind)]
    if "NCA_STORE=" not in shell:
        notes.append("setup_commands export no NCA_STORE: give `run` a --store that every node sees")
    if not grows_to and kind == "local":
        notes.append(f"setup_commands export no {GROWS_TO}: a study is refused while the machines are not up")
    return Checked(tuple(wrong), tuple(notes), tuple(describe(filled)), grows_to)


def unchanged(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(field, value) of every text in which CHANGE was left, comments of shell and YAML aside."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unchanged(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from unchanged(inner, f"{path}[{i}]")
    elif isinstance(value, str):
        for line in value.splitlines():
            for word in re.sub(r"(^|\s)#.*", "", line).split():
                if "CHANGE" in word:
                    yield path, word


def by_ray(config: Config) -> dict[str, Any]:
    """`config` with Ray's defaults, by Ray's own check. Raises ValueError, in one line."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    logger = logging.getLogger("ray.autoscaler")
    level = logger.level
    logger.setLevel(logging.ERROR)  # Ray's own remarks; some are printed
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            filled: dict[str, Any] = prepare_config(copy.deepcopy(dict(config)))
            validate_config(filled)
    except jsonschema.ValidationError as e:
        where = ".".join(str(part) for part in e.absolute_path) or "the file"
        raise ValueError(f"{where}: {e.message.splitlines()[0]}") from e
    except KeyError as e:
        raise ValueError(f"{e.args[0]}: missing") from e
    except (Exception, SystemExit) as e:  # Ray raises whatever it stumbles over
        raise ValueError(f"Ray refuses it: {' '.join(str(e).split()) or type(e).__name__}") from e
    finally:
        logger.setLevel(level)
    return filled


def provider(config: Config) -> Iterator[str]:
    said: Config = config["provider"] or {}
    kind, zones, region = said.get("type"), said.get("availability_zone"), said.get("region")
    for name in PROVIDER_NEEDS.get(str(kind), ()):
        if not said.get(name):
            yield f"provider.{name}: missing; provider {kind} needs it"
    for zone in (zones or "").split(","):
        if zone and region and not zone.strip().startswith(region):
            yield f"provider.availability_zone = {zone.strip()!r}: not in region {region!r}"
    if kind == "aws" and region and installed("botocore"):
        yield from aws.region(region)


def missing_files(config: Config) -> Iterator[str]:
    for remote, here in (config.get("file_mounts") or {}).items():
        if not Path(here).expanduser().exists():
            yield f"file_mounts.{remote} = {here!r}: no such file; run from the project's directory"
    key = (config.get("auth") or {}).get("ssh_private_key")
    if key and not Path(key).expanduser().exists():
        yield f"auth.ssh_private_key = {key!r}: no such file"


def node_types(config: Config) -> Iterator[str]:
    """What is wrong with the kinds of nodes of a cloud."""
    cloud, head = str(config["provider"].get("type")), config.get("head_node_type")
    machine = MACHINE.get(cloud)
    for name, kind in (config.get("available_node_types") or {}).items():
        field = f"available_node_types.{name}"
        resources = kind.get("resources") or {}
        if name != head and not resources:
            yield f"{field}.resources: empty; an autoscaler that starts from no nodes knows only what stands there"
        elif name == head:
            for unit in ("CPU", "GPU"):
                if resources.get(unit, int(unit == "CPU")):
                    said = resources.get(unit, "missing")
                    yield f"{field}.resources.{unit} = {said!r}: the head only drives; use 0"
        node_config = kind.get("node_config") or {}
        if machine and machine not in node_config:
            yield f"{field}.node_config.{machine}: missing; provider {cloud} needs it"
        if cloud == "aws" and installed("botocore"):
            yield from aws.node_config(f"{field}.node_config", node_config)


def local(filled: Config) -> Iterator[str]:
    """What is wrong with machines of one's own; Ray counts what the head has unless told."""
    start = next((c for c in filled["head_start_ray_commands"] if "--head" in c), "")
    for option in ("--num-cpus=0", "--num-gpus=0"):
        if option not in start.split():
            yield f"head_start_ray_commands = {start!r}: the head only drives; add {option}"
    (kind,) = filled["available_node_types"].values()
    if kind["min_workers"] < kind["max_workers"]:
        wanted = f"use {kind['max_workers']}: Ray starts no machine for stages before it knows what that machine has"
        yield f"min_workers = {kind['min_workers']}: {wanted}"


def credentials(kind: str) -> Iterator[str]:
    if kind in LIBRARY and not installed(LIBRARY[kind].split(".", maxsplit=1)[0]):
        yield f"`ray up` needs {LIBRARY[kind]}, which is not installed here"
    if kind == "aws" and not installed("botocore"):
        yield "the region and what every node_config says are not checked: botocore, which comes with boto3, knows them"
    if kind in CREDENTIALS:
        variables, files, otherwise = CREDENTIALS[kind]
        found = any(os.environ.get(v) for v in variables) or any(Path(f).expanduser().exists() for f in files)
        if not found:
            yield f"no credentials in the environment, {' or '.join(files)}: {otherwise}"


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def describe(filled: Config) -> Iterator[str]:
    """A line for every kind of node; machines of one's own are counted."""
    if filled["provider"].get("type") == "local":
        yield f"head  {filled['provider'].get('head_ip')}: drives"
        yield f"workers  {', '.join(filled['provider'].get('worker_ips', []))}"
        return
    machine = MACHINE.get(filled["provider"]["type"], "")
    for name, kind in filled["available_node_types"].items():
        what = kind.get("node_config", {}).get(machine, "")
        if name == filled["head_node_type"]:
            yield f"{name}  {what}: drives"
        else:
            least, most = kind["min_workers"], min(kind["max_workers"], filled["max_workers"])
            yield f"{name}  {what}: {amounts(kind.get('resources') or {})} each, {least} to {most} of them"


def amounts(resources: Mapping[str, float]) -> str:
    """48 CPU, 4 GPU."""
    return ", ".join(f"{resources[name]:g} {name}" for name in sorted(resources) if resources[name]) or "nothing"
