"""A RayJob or RayCluster of KubeRay: what is wrong with it, and what it can grow to."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from harness.cluster.growth import GROWS_TO, parse
from harness.errors import InputError

KINDS = ("RayJob", "RayCluster")
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3}
RESOURCES = {"cpu": "CPU", "nvidia.com/gpu": "GPU", "memory": "memory"}
"""Kubernetes' names, and Ray's."""


def check(documents: Sequence[Any]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
    """(what is wrong, a line for every kind of pod, what the cluster grows to)."""
    (job,) = [d for d in documents if d.get("kind") in KINDS][:1]
    spec = job.get("spec") or {}
    cluster = spec.get("rayClusterSpec") if job["kind"] == "RayJob" else spec
    field = "spec.rayClusterSpec" if job["kind"] == "RayJob" else "spec"
    if not cluster or not cluster.get("headGroupSpec") or not cluster.get("workerGroupSpecs"):
        return (f"{field}: has no headGroupSpec and workerGroupSpecs",), (), {}
    claims = {d["metadata"]["name"]: d for d in documents if d.get("kind") == "PersistentVolumeClaim"}
    wrong = [*job_of(spec), *pods(cluster, field), *volumes(cluster, field, claims)]
    nodes, grows_to = ["head: drives"], dict[str, float]()
    for i, group in enumerate(cluster["workerGroupSpecs"]):
        try:
            offered = offers(group)
        except InputError as e:
            wrong.append(f"{field}.workerGroupSpecs[{i}]: {e}")
            continue
        most = int(group.get("maxReplicas") or group.get("replicas") or 0)
        for name, amount in offered.items():
            grows_to[name] = grows_to.get(name, 0.0) + most * amount
        said = ", ".join(f"{offered[name]:g} {name}" for name in ("CPU", "GPU") if name in offered)
        nodes.append(f"{group.get('groupName')}: {said} each, {group.get('minReplicas', 0)} to {most} of them")
    wrong += growth(spec, grows_to)
    return tuple(wrong), tuple(nodes), grows_to


def job_of(spec: Mapping[str, Any]) -> Iterator[str]:
    if "rayClusterSpec" in spec and not spec.get("entrypoint"):
        yield "spec.entrypoint: missing; use python -m harness run FILE"
    if "${" in (spec.get("runtimeEnvYAML") or "") and spec.get("submissionMode") != "HTTPMode":
        mode = spec.get("submissionMode", "missing")
        yield f"spec.submissionMode = {mode!r}: a shell would replace the ${{...}} of runtimeEnvYAML; use HTTPMode"
    if isinstance(runtime_env(spec), str):
        yield f"spec.runtimeEnvYAML: no YAML: {runtime_env(spec)}"


def runtime_env(spec: Mapping[str, Any]) -> dict[str, Any] | str:
    """The runtime environment of a job, or why it cannot be read."""
    try:
        return yaml.safe_load(spec.get("runtimeEnvYAML") or "") or {}
    except yaml.YAMLError as e:
        return " ".join(str(e).split())


def pods(cluster: Mapping[str, Any], field: str) -> Iterator[str]:
    """What is wrong with the head and the groups of workers."""
    params = cluster["headGroupSpec"].get("rayStartParams") or {}
    for name in ("num-cpus", "num-gpus"):
        if str(params.get(name)) != "0":
            value = params.get(name, "missing")
            yield f'{field}.headGroupSpec.rayStartParams.{name} = {value!r}: the head only drives; use "0"'
    version = str(cluster.get("rayVersion"))
    groups = {"headGroupSpec": cluster["headGroupSpec"]}
    groups |= {f"workerGroupSpecs[{i}]": group for i, group in enumerate(cluster["workerGroupSpecs"])}
    for where, group in groups.items():
        for name, value in (group.get("rayStartParams") or {}).items():
            if not isinstance(value, str):
                yield f"{field}.{where}.rayStartParams.{name} = {value!r}: KubeRay takes texts; put it in quotes"
        for container in containers(group)[:1]:
            image = str(container.get("image"))
            if image.startswith("rayproject/ray:") and not image.startswith(f"rayproject/ray:{version}-"):
                yield f"{field}.{where}: image = {image!r}: not of rayVersion {version!r}"
    for where, group in list(groups.items())[1:]:
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if not least <= group.get("replicas", least) <= most:
            yield f"{field}.{where}.replicas = {group.get('replicas')!r}: not between minReplicas and maxReplicas"
        if least < most and not cluster.get("enableInTreeAutoscaling"):
            yield f"{field}.enableInTreeAutoscaling: missing; without it {where} stays at its replicas"


def volumes(cluster: Mapping[str, Any], field: str, claims: Mapping[str, Any]) -> Iterator[str]:
    """The store must be one volume of all pods."""
    mounted = {}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        by_name = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod.get("volumes") or ()}
        mounts = [m for c in containers(group)[:1] for m in c.get("volumeMounts") or ()]
        for mount in mounts:
            if mount["name"] not in by_name:
                yield f"{field}: volumeMounts = {mount['name']!r}: no such volume; there are {sorted(by_name)}"
        mounted[group.get("groupName", "head")] = {
            m["mountPath"]: by_name[m["name"]] for m in mounts if by_name.get(m["name"])
        }
    if any(each != mounted["head"] for each in mounted.values()):
        yield f"{field}: volumeMounts differ between head and workers: every pod must see the store"
    for name in {claim for each in mounted.values() for claim in each.values()} & set(claims):
        modes = claims[name]["spec"].get("accessModes")
        if modes != ["ReadWriteMany"]:
            yield f"PersistentVolumeClaim {name}: accessModes = {modes!r}: many pods write it; use [ReadWriteMany]"


def containers(group: Mapping[str, Any]) -> list[Any]:
    return list(group["template"]["spec"].get("containers") or ())


def offers(group: Mapping[str, Any]) -> dict[str, float]:
    """What one pod of a group offers to Ray: the limits of its first container. Raises InputError."""
    limits = (containers(group)[0].get("resources") or {}).get("limits") or {}
    if "cpu" not in limits:
        raise InputError("resources.limits.cpu: missing; an autoscaler that starts from no pods knows only the limits")
    return {ours: quantity(name, limits[name]) for name, ours in RESOURCES.items() if name in limits}


def quantity(name: str, text: Any) -> float:
    """A quantity of Kubernetes, 500m or 64Gi. Raises InputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]*)", str(text))
    if not found or found[2] not in {"", *UNITS}:
        raise InputError(f"resources.limits.{name} = {text!r}: no quantity, such as 48 or 180Gi")
    return float(found[1]) * UNITS.get(found[2], 1.0)


def growth(spec: Mapping[str, Any], grows_to: Mapping[str, float]) -> Iterator[str]:
    """KubeRay's autoscaler tells no driver what it may start, so the job must."""
    environment = runtime_env(spec)
    said = (environment.get("env_vars") or {}).get(GROWS_TO) if isinstance(environment, dict) else None
    true = {name: grows_to[name] for name in ("CPU", "GPU") if grows_to.get(name)}
    wanted = ",".join(f"{name}={amount:g}" for name, amount in true.items())
    if "rayClusterSpec" in spec and (not said or parse(str(said)) != true):
        value = f" = {said!r}" if said else ": missing"
        yield f"spec.runtimeEnvYAML.env_vars.{GROWS_TO}{value}; workers times maxReplicas is {wanted}"
