"""The same problems through lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness), an optional
dependency: its tokenisation, generation and scoring, on the prompts and data of this package, without the network.

It scores every problem by itself; means over problems are taken here, so that they do not depend on how many problems
it was given at once.
"""

import importlib.metadata
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.reasoning.choices import Choices
from harness.reasoning.gsm8k import GSM8K, STOP
from harness.reasoning.passk import plain, rate
from harness.reasoning.spec import Asking, Evaluate, Means, Problem

TASK = "harness_task"

Samples = list[dict[str, Any]]
"""As lm-evaluation-harness logs them, with the name of the problem."""


def check(asked: Asking) -> None:
    """Raise InputError where it is not installed, or is asked what it does not do here."""
    task = type(asked.task).__name__
    require(isinstance(asked.task, GSM8K | Choices), "Evaluate.task", task, "lm-eval runs GSM8K and Choices")
    require(asked.samples == 1, "Evaluate.samples", asked.samples, "lm-eval draws one sample here")
    require(asked.temperature == 0, "Evaluate.temperature", asked.temperature, "lm-eval is greedy here")
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("Evaluate.engine = 'lm-eval': is not installed; pip install 'lm-eval[hf]>=0.4.9'")


def version() -> str:
    return importlib.metadata.version("lm_eval")


def batches(stage: Evaluate, model: Path, means: Means) -> Callable[[Sequence[Problem]], Iterator[Samples]]:
    """Loads the exported `model`, which then answers problems, all that it is given at once."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(
        pretrained=str(model),
        dtype="float32",
        add_bos_token=True,
        trust_remote_code=False,
        batch_size=means.rows,
        device=means.device,
    )
    tasks = TaskManager(include_defaults=False)  # those that it brings take long to list

    def answer(problems: Sequence[Problem]) -> Iterator[Samples]:
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "test.jsonl"
            data.write_text("".join(json.dumps(_document(stage, p)) + "\n" for p in problems), "utf-8")
            found = lm_eval.simple_evaluate(
                model=lm,
                tasks=[config(stage, data, Path(place) / "cache")],
                task_manager=tasks,
                num_fewshot=0,
                log_samples=True,
                bootstrap_iters=0,
                random_seed=stage.seed,
                numpy_random_seed=stage.seed,
                torch_random_seed=stage.seed,
                fewshot_random_seed=stage.seed,
            )
        (samples,) = found["samples"].values()
        own = {s["doc"]["name"]: {"problem": s["doc"]["name"], **_plain(s)} for s in samples}
        yield [own[p.name] for p in problems]

    return answer


def scores(records: Sequence[dict[str, Any]], stage: Evaluate) -> dict[str, Any]:
    """The mean of every metric over problems with its interval, under the name that lm-evaluation-harness gives it: the
    metric and the filter that read the answer."""
    metrics = [metric["metric"] for metric in _judged(stage)["metric_list"]]
    (read_by,) = {record["filter"] for record in records}
    return {f"{metric},{read_by}": plain(rate([float(r[metric]) for r in records])) for metric in metrics}


def _document(stage: Evaluate, problem: Problem) -> dict[str, Any]:
    own = {"name": problem.name, "prompt": problem.prompt}
    if isinstance(stage.task, Choices):
        return own | {"options": problem.row["options"], "right": problem.row["right"][0]}
    return own | {"gold": problem.row["answer"].split("####")[-1].strip().replace(",", "")}


def config(stage: Evaluate, data: Path, cache: Path) -> dict[str, Any]:
    """The task as lm-evaluation-harness configures one; shots stand in the prompts already."""
    return {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(cache)},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "metadata": {"version": stage.version},
        **_judged(stage),
    }


def _judged(stage: Evaluate) -> dict[str, Any]:
    """How answers are asked for and judged."""
    if isinstance(stage.task, Choices):
        return {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "{{right}}",
            "target_delimiter": " ",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
            ],
        }
    assert isinstance(stage.task, GSM8K)
    marked = {"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}
    return {
        "output_type": "generate_until",
        "doc_to_target": "{{gold}}",
        "generation_kwargs": {"until": list(STOP), "do_sample": False, "max_gen_toks": stage.task.max_tokens},
        "filter_list": [{"name": "marked", "filter": [marked, {"function": "take_first"}]}],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "regexes_to_ignore": [",", r"\$", r"\.$"],
            }
        ],
    }


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """What lm-evaluation-harness logs of a sample, as JSON data."""
    return json.loads(json.dumps({k: v for k, v in value.items() if k != "arguments"}, default=str))
