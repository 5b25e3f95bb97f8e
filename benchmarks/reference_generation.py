"""The paper's released generator under the same clock: run by `generation.py --reference`, in an interpreter with JAX.

    python benchmarks/reference_generation.py CHECKOUT

CHECKOUT is a clone of github.com/danihyunlee/nca-pre-pretraining; its requirements must be importable. Prints JSON:
process CPU seconds of one core, a median, of 1,024 tokens a sequence at the released settings (27 frames after 10
steps, 10 states, temperature 1e-4), and accepted rules a second of its 50 %+ filter.
"""

import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"

SEQUENCES, RULES, REPEATS = 256, 1024, 5
RELEASED: dict[str, Any] = {
    "grid": 12,
    "d_state": 10,
    "identity_bias": 0.0,
    "temperature": 1e-4,
    "dT": 1,
    "start_step": 10,
}


def median(work: Callable[[int], Any]) -> float:
    """Median process CPU seconds of `work(repeat)`, after one run that is not counted."""
    work(0)
    spent = []
    for repeat in range(1, REPEATS + 1):
        before = time.process_time()
        work(repeat)
        spent.append(time.process_time() - before)
    return statistics.median(spent)


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    import jax
    from utils.nca import generate_nca_dataset, generate_rules_batch
    from utils.tokenizers import NCA_Tokenizer

    tokenizer = NCA_Tokenizer(2, num_colors=10)
    trajectories = functools.partial(
        generate_nca_dataset, num_sims=SEQUENCES, num_rules=SEQUENCES, n_groups=1, num_examples=27, **RELEASED
    )

    def generate(make: Callable[..., Any], repeat: int) -> Any:
        key = jax.random.PRNGKey(repeat)
        states = make(key, rule_seeds=jax.random.split(key, SEQUENCES))
        return tokenizer.encode_task(jax.block_until_ready(states))

    def accept(repeat: int) -> Any:
        settings = {**RELEASED, "threshold": 0.5, "mode": "gzip", "n_steps": 10, "tokenizer": tokenizer}
        return generate_rules_batch(jax.random.PRNGKey(repeat), RULES, **settings)

    eager = median(functools.partial(generate, trajectories))
    jitted = median(functools.partial(generate, jax.jit(trajectories)))
    accepting = median(accept)
    result = {
        "eager_tokens_per_s": SEQUENCES * 1024 / eager,
        "jit_tokens_per_s": SEQUENCES * 1024 / jitted,
        "accepted_per_s": RULES / accepting,
        "jax": jax.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
