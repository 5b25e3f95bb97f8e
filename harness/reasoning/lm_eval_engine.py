"""The same problems through lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness), an optional
dependency: its tokenisation, generation and scoring, on the prompts and data of this package, without the network.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.reasoning.choices import Choices
from harness.reasoning.gsm8k import GSM8K, STOP
from harness.reasoning.spec import Evaluate, Means, Problem

TASK = "harness_task"


def evaluate(
    stage: Evaluate, problems: Sequence[Problem], directory: Path, means: Means, device: str
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Samples, metrics as lm-evaluation-harness names them, and its version, for the exported model in `directory`.

    Raises InputError where it is not installed, or has no such task."""
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as e:
        raise InputError("Evaluate.engine = 'lm-eval': is not installed; pip install 'lm-eval[hf]>=0.4.9'") from e

    require(
        isinstance(stage.task, GSM8K | Choices),
        "Evaluate.task",
        type(stage.task).__name__,
        "lm-eval runs GSM8K and Choices",
    )
    require(stage.samples == 1, "Evaluate.samples", stage.samples, "lm-eval draws one sample here")
    require(stage.temperature == 0, "Evaluate.temperature", stage.temperature, "lm-eval is greedy here")
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "test.jsonl"
        data.write_text("".join(json.dumps(_document(stage, p)) + "\n" for p in problems), "utf-8")
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={
                "pretrained": str(directory),
                "dtype": "float32",
                "add_bos_token": True,
                "trust_remote_code": False,
            },
            tasks=[config(stage, data, Path(place) / "cache")],
            task_manager=TaskManager(include_defaults=False),  # those that it brings take long to list
            num_fewshot=0,
            batch_size=means.rows,
            device=device,
            log_samples=True,
            bootstrap_iters=0,
            random_seed=stage.seed,
            numpy_random_seed=stage.seed,
            torch_random_seed=stage.seed,
            fewshot_random_seed=stage.seed,
        )
    (name,) = found["results"]
    scores = {metric: value for metric, value in found["results"][name].items() if isinstance(value, int | float)}
    samples = [{"problem": s["doc"]["name"], **_plain(s)} for s in found["samples"][name]]
    return samples, scores, lm_eval.__version__


def _document(stage: Evaluate, problem: Problem) -> dict[str, Any]:
    own = {"name": problem.name, "prompt": problem.prompt}
    if isinstance(stage.task, Choices):
        return own | {"options": problem.row["options"], "right": problem.row["right"][0]}
    return own | {"gold": problem.row["answer"].split("####")[-1].strip().replace(",", "")}


def config(stage: Evaluate, data: Path, cache: Path) -> dict[str, Any]:
    """The task as lm-evaluation-harness configures one; shots stand in the prompts already."""
    found: dict[str, Any] = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(cache)},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "metadata": {"version": stage.version},
    }
    if isinstance(stage.task, Choices):
        return found | {
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
    return found | {
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
