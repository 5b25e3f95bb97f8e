"""A trial: what Ray Tune runs of one stage. Either it only drives, and Ray Train has the workers; or, for short stages,
it is the one worker itself, in a process that the next stage finds warm."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import tune

from harness import failure, stages
from harness.asking import asking
from harness.automata import engine
from harness.cluster import data, evaluate, failures, telling, train
from harness.cluster.resources import Resources
from harness.errors import InputError
from harness.reasoning.spec import Evaluate
from harness.specs import Stage, Train, digest
from harness.stages import check_budget, open_reader, run_stored
from harness.store import Store
from harness.worker import Options, Stopped, Worker

AWAY_S = 600.0
"""What an object store may be away before a stage is given up."""
AGAIN_S = 5.0
"""After which it is tried again."""
HEAD = {"node:__internal_head__": 0.001}
"""A trial that only drives sits on the head node and takes no CPU from training."""


def resources(of: Resources) -> tune.PlacementGroupFactory:
    """What the trial of a stage holds itself."""
    return tune.PlacementGroupFactory([of.footprint(1) if of.in_trial else HEAD])


def run(
    config: dict[str, Any],
    stages: Mapping[str, Stage],
    store: Store,
    of: Mapping[str, Resources],
    options: Options,
    run_id: str,
    tell: bool = False,
) -> dict[str, Any]:
    """Run one stage, unless another driver on this store was first. What Tune should not try again is returned. With
    `tell`, Tune gets the stage's curve as it comes."""
    stage = stages[config["stage"]]
    address = digest(stage)
    given = replace(of[address], workers=config.get("workers", of[address].workers))
    if not store.has(address) and not options.stopping:
        try:
            _patiently(functools.partial(_run, stage, store, given, options, run_id, tell), options)
        except (failures.StageFailed, InputError) as e:
            failure.write(store, address, str(e) if isinstance(e, failures.StageFailed) else failure.describe(e))
            return {"stage": 0, "failed": str(e).splitlines()[0]}
        except Stopped:
            return {"stage": 0, "status": "stopped"}
        except failures.TryAgain as e:
            failure.write(store, address, failure.describe(e.__cause__ or e))
            raise
        except Exception as e:  # noqa: BLE001 whatever it is, it ends this stage and no other
            failure.write(store, address, failure.describe(e))
            return {"stage": 0, "failed": failure.root_message(e)}
    manifest = store.manifest(address)
    if manifest is None and options.stopping:
        return {"stage": 0, "status": "stopped"}
    assert manifest is not None
    last = telling.rows(stage, store)[-1] if tell and isinstance(stage, Train) else {}
    loss_nats = manifest.get("held_out", {}).get("loss_nats")
    return {**last, "stage": 1, "status": manifest["status"], "loss_nats": loss_nats}


def _patiently(run: Callable[[], None], options: Options) -> None:
    """Run a stage; again, for AWAY_S at most, while what it meets is an object store that is away. Raises Stopped if it
    is told to stop meanwhile."""
    since: float | None = None
    while True:
        began = time.monotonic()
        try:
            return run()
        except failures.StageFailed:
            raise
        except Exception as e:
            ended = time.monotonic()
            since = ended if since is None or ended - began > AWAY_S else since
            if not failure.of_store(e) or ended - since > AWAY_S:
                raise
            if options.stopping:
                raise Stopped("stopped while its object store was away") from e
        time.sleep(AGAIN_S)


def _run(stage: Stage, store: Store, of: Resources, options: Options, run_id: str, tell: bool) -> None:
    if not store.exists():
        raise failures.unseen(store, "the machine of the trial")
    if isinstance(stage, Evaluate):
        evaluate.run(stage, store, of, options)
        return
    if not isinstance(stage, Train):
        tokenise = functools.partial(data.tokenise, cpus=of.generator_cpus, stop=lambda: options.stopping)
        run_stored(stage, store, stages.writer(stage, store, tokenise), executed="ray")
        return
    check_budget(stage, open_reader(stage, store))
    if of.in_trial:
        attempt = functools.partial(_here, stage, store, of, options, run_id, tell)
    else:
        callbacks = [telling.Rows(stage)] if tell else []
        attempt = functools.partial(train.workers, stage, store, of, options, run_id, callbacks)
    train.fit(stage, store, of, options, attempt)


def _here(spec: Train, store: Store, of: Resources, options: Options, run_id: str, tell: bool) -> str | None:
    """Run a stage in this process. What a death or an error leads to is as on Ray's workers: see train._rank."""
    token, why = train.begin(spec, store, options, run_id, world=1)
    if token is None:
        return why
    gpu = of.per_worker.get("GPU", 0.0) > 0
    if gpu and of.generator_gpus:
        engine.set_device("cuda")
    worker = Worker(
        device="cuda:0" if gpu else "cpu",
        memory_share=of.gpu_share,
        threads=train.threads(gpu),
        options=options,
        executed="trial",
        report=telling.reporter(spec) if tell else lambda row: None,
        notice=_notice(spec, store, token),
        stop=asking(store, lambda: options.stopping),
    )
    try:
        stages.run_train(spec, store, worker)
    except failures.Replaced:
        return failures.REPLACED
    except Stopped:
        return failures.STOPPED
    except train.ERRORS as e:
        again = failures.write_note(spec, store, 0, e, stages.committed_step(spec, store))
        if again or isinstance(e, InputError):
            return None
        raise failures.TryAgain(str(e)) from e
    return None


def _notice(spec: Train, store: Store, token: str) -> Callable[[], bool]:
    """Worker.notice: nobody announces anything to a trial, but another driver may have taken the stage over."""
    replaced = train.replaced(spec, store, token)

    def notice() -> bool:
        if replaced():
            raise failures.Replaced(failures.REPLACED)
        return False

    return notice
