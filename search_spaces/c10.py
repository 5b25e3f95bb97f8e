"""Does what automata teach carry over to reasoning (C10)?

Arms: scratch and text after automata, then tuned on the training examples of a benchmark and asked its test problems:
GSM8K after mathematics (worked answers, pass@k of sampled solutions) and BigBench-Lite after web text (multiple choice,
normalised by what guessing scores at the same k); HumanEval after code, without tuning (pass@k of programs that pass
hidden tests). Decided by the paired loss gap on held-out answers, of HumanEval on held-out code: above 0 and at least
.01 nats for each. Accuracies of models of these sizes are near guessing, so the log-probability of answers tells more;
both are in the results.

`EXAMPLES` are numbers of training examples, fewer than there are (GSM8K has 7,473; 5 % are held out, and what does not
fit into a context is left out), since a plan is made without the data. Examples, problems and, at the larger scales,
text come from the hub: `plan` needs no network, `run` does, on the laptop too, whose text is Python alone. HumanEval
runs what the model writes: `run --run-generated-code`.
"""

from ray import tune

from harness import arms, claims
from harness.reasoning import tasks
from harness.reasoning.tasks import Benchmark, Tuning
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study
from harness.specs import Evaluation, Recipe

AFTER = {"gsm8k": "math", "bigbench-lite": "web", "humaneval": "code"}
"""The text before a benchmark, where the scale has it; else the scale's first."""
EXAMPLES = {
    "laptop": {"gsm8k": 2_000, "bigbench-lite": 2_000},
    "gpu_day": {"gsm8k": 7_000, "bigbench-lite": 70_000},
    "gpu64_week": {"gsm8k": 7_000, "bigbench-lite": 70_000},
}
EPOCHS = {"gsm8k": 10, "bigbench-lite": 1}
LR = {
    "laptop": {"gsm8k": 1e-3, "bigbench-lite": 1e-3},
    "gpu_day": {"gsm8k": 1e-4, "bigbench-lite": 5e-5},
    "gpu64_week": {"gsm8k": 1e-5, "bigbench-lite": 5e-6},
}
"""The largest scale has those of the paper; the others are starting points."""
MEASURED = {"laptop": 64, "gpu_day": 256, "gpu64_week": 256}
"""Held-out answers."""
SAMPLES = {"laptop": 4, "gpu_day": 16, "gpu64_week": 32}
TEMPERATURE = 0.6


def at(scale):
    def domain(task):
        return AFTER[task] if AFTER[task] in scale.texts else scale.domain

    def ready(pretrained, task, seed):
        if task == "humaneval":
            return pretrained
        recipe = Recipe(LR[scale.name][task], batch=32, precision=pretrained.recipe.precision)
        source = tasks.answers(task, scale.texts[domain(task)])
        measured = Evaluation(points=16, sequences=MEASURED[scale.name])
        return tasks.tune(pretrained, source, EXAMPLES[scale.name][task], Tuning(EPOCHS[task], recipe), seed, measured)

    def scratch(task, seed):
        return ready(arms.scratch(scale, seed, domain=domain(task)), task, seed)

    def nca(task, seed):
        return ready(arms.nca(scale, seed, domain=domain(task)), task, seed)

    def asked(name):
        task = tasks.task(name)
        return Benchmark(task, SAMPLES[scale.name], TEMPERATURE if task.draws else 0.0, at={"task": name})

    return Study(
        name=f"c10_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over={"task": tune.grid_search(list(AFTER)), "seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.reasoning()],
        benchmarks={name: asked(name) for name in AFTER},
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
