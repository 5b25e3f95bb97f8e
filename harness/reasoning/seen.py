"""Whether a stage was tuned on what it is asked, under whatever name it came."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import require
from harness.reasoning.spec import Evaluate, Problem
from harness.sources.answers import AnswerReader
from harness.specs import digest
from harness.store import Store


def count(stage: Evaluate, problems: Sequence[Problem], store: Store) -> int | None:
    """How many of `problems` have the prompt, shots aside, of an example that the weights were tuned on, but for case
    and white space; None where they were tuned on no examples, or those are no longer in the store. Raises InputError
    where all of them have: then the rows are those of the tuning, by another name."""
    artifacts = [store.open(digest(source)) for source in stage.sources() if source["type"] == "Answers"]
    places = [artifact for artifact in artifacts if artifact is not None]
    if not places or len(places) < len(artifacts):
        return None
    known = {_folded(prompt) for place in places for prompt in AnswerReader(place).prompts()}
    alone = problems if stage.shots == 0 else stage.task.read(0, stage.seed)
    seen = sum(_folded(problem.prompt) in known for problem in alone)
    way_out = f"the stage was tuned on all {len(alone)} problems; ask others"
    require(seen < len(alone), "task", type(stage.task).__name__, way_out)
    return seen


def told(manifest: Mapping[str, Any]) -> str | None:
    """What people are told of it; None where nothing was seen."""
    if not manifest.get("tuned_on"):
        return None
    return f"{manifest['tuned_on']} of {manifest['problems']} problems are among what the stage was tuned on"


def _folded(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()
