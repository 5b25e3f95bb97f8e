"""Does every node see the store? Asked before anything starts; nodes that come later are asked by training's ranks."""

import secrets

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.cluster import failures
from harness.errors import InputError
from harness.store import Store
from harness.url import Place

ANSWER_S = 120.0
"""What a node may take: it may have to start a process, and to import the client of an object store."""


def check(store: Store) -> None:
    """Raise InputError, with the node's address, unless every node that is alive reads what this one writes."""
    token = secrets.token_hex(8)
    probe = store.scratch / f".probe-{token}"
    probe.write_bytes(token.encode())
    try:
        asked = {_ask(node["NodeID"]).remote(probe, token): node for node in ray.nodes() if node["Alive"]}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for answer in answered:
            try:
                why = ray.get(answer)
            except ray.exceptions.RayError:
                continue  # a node that was lost meanwhile
            if why is not None:
                raise InputError(failures.blind(store, f"node {asked[answer]['NodeManagerAddress']}", why))
    finally:
        probe.unlink(missing_ok=True)


def _ask(node: str) -> ray.remote_function.RemoteFunction:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(_read)


def _read(probe: Place, token: str) -> str | None:
    """What is wrong with `probe`, as this node sees it."""
    try:
        return None if probe.read_text() == token else f"{probe.name} holds something else"
    except Exception as e:  # noqa: BLE001 a wrong mount, a package that lacks, no credentials: all are told
        return " ".join(str(e).split()) or type(e).__name__
