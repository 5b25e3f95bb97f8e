"""The mirror of a curve in Weights & Biases, for those who asked for one; nothing is read from it."""

import threading
from collections.abc import Mapping
from typing import Any

from harness.specs import Train, canonical, digest, parents
from harness.url import Place
from harness.worker import Options

INIT_S = 30
"""How long a stage waits for the server before it goes on without it."""
FINISH_S = 60
"""How long a stage that is done waits until everything is sent."""


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a curve as single values: those by frame become one a frame, and what is missing is left out."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            values |= {f"{name}/{i:02d}": v for i, v in enumerate(value) if v is not None}
        elif value is not None:
            values[name] = value
    return values


class Tracker:
    """One run a stage: the project that was asked for, the study as its group, the digest as its id, so that a stage
    that goes on goes on there too; the stages that it follows are in its configuration. `failure` says what was wrong
    with it; a curve never waits for a tracker, and the other stages of the same `run` do without one."""

    def __init__(self, spec: Train, options: Options) -> None:
        self.run: Any = None
        self.failure: str | None = None
        self.told = options.wandb_trouble
        try:
            if self.told is not None and self.told.exists():
                return  # said once
            import wandb

            settings = wandb.Settings(silent=True, console="off", init_timeout=INIT_S)
            require_login(wandb, settings)
            self.run = wandb.init(
                project=options.wandb,
                group=options.study or None,
                job_type=type(spec.corpus.source).__name__,
                name=f"{type(spec.corpus.source).__name__} {digest(spec)[:12]}",
                id=run_id(digest(spec)),
                tags=[arm[:64] for arm in options.arms.get(digest(spec), ())] or None,
                resume="allow",
                config=canonical(spec) | {"digest": digest(spec), "parents": linked(spec, options)},
                settings=settings,
            )
            self.run.define_metric("tokens", hidden=True)
            self.run.define_metric("*", step_metric="tokens")
            if not self.run.offline:
                place = self.run.url.rpartition("/")[0]
                urls = {role: f"{place}/{name}" for role, name in linked(spec, options).items()}
                self.run.config.update({"parent_urls": urls}, allow_val_change=True)
        except Exception as e:  # noqa: BLE001 a wrong key or no network is no reason to lose a stage
            self._fail(e)

    def log(self, row: dict[str, Any]) -> None:
        """Send a row of the curve; values by frame become one series a frame."""
        if self.run is None:
            return
        try:
            self.run.log(flat(row))
        except Exception as e:  # noqa: BLE001
            self._fail(e)

    def close(self, final: dict[str, Any] | None) -> None:
        """Send what is left, with the row of the last step if the stage has come to it; the stage is done whether that
        works or not."""
        if self.run is None:
            return
        failed: list[Exception] = []

        def finish() -> None:
            try:
                if final is not None:
                    named = ("loss_nats", "loss_bits_per_byte", "accuracy", "tokens", "device_s")
                    self.run.summary.update({f"final/{name}": final.get(name) for name in named})
                self.run.finish()
            except Exception as e:  # noqa: BLE001
                failed.append(e)

        # A server that is gone would be waited for much longer than a stage lasts.
        sending = threading.Thread(target=finish, daemon=True)
        sending.start()
        sending.join(FINISH_S)
        if sending.is_alive():
            failed.append(TimeoutError(f"not everything was sent within {FINISH_S} s; `wandb sync` sends the rest"))
        if failed:
            self._fail(failed[0])

    def _fail(self, error: Exception) -> None:
        self.run, self.failure = None, f"no Weights & Biases: {str(error) or type(error).__name__}".splitlines()[0]
        if self.told is not None:
            try:
                self.told.parent.mkdir(parents=True, exist_ok=True)
                self.told.write_text(self.failure)
            except OSError:
                return  # the curve's note says it too


def run_id(digest: str) -> str:
    """What a stage is called there."""
    return digest[:32]


def linked(spec: Train, options: Options) -> dict[str, str]:
    """Ids of the runs of the stages that `spec` goes on from, by their role."""
    before = {role: digest(stage) for role, stage in parents(spec).items() if isinstance(stage, Train)}
    if digest(spec) in options.starts:
        before["start"] = options.starts[digest(spec)]
    return {role: run_id(address) for role, address in before.items()}


def require_login(wandb: Any, settings: Any) -> None:
    """Raise RuntimeError where wandb would ask for a key on the terminal."""
    online = wandb.setup(settings).settings.mode not in ("offline", "disabled", "dryrun")
    if online and not wandb.login(prompt=False):
        raise RuntimeError("not logged in; run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline")


def trouble(place: Place) -> str | None:
    """What the first stage said that could not be mirrored, if there was one; `place` is `Options.wandb_trouble`."""
    try:
        return place.read_text() or None
    except OSError:
        return None
