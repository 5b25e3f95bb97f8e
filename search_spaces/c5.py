"""Is it the structure of automata that helps, or their statistics (C5)?

Arms: text after automata, and after controls that each lack one thing and are trained alike. `tokens_shuffled`: order
within a frame; `frames_shuffled`: order in time; `iid`: all but the counts of tokens; `one_rule`: anything to infer in
context; `hot`: predictability (temperature 1, without a band, since none is left to accept); `copying`: the copy task,
with as many ids. `permuted` and `resampled` train nothing more: the trained weights with every matrix permuted within
itself, or drawn anew at its norm. Decided by the paired loss gap of automata to each control: above 0 and at least .01
nats, Holm over the controls. Controls have the recipe and initial scale of the NCA arm for their text.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.sources.copying import Copy
from harness.sources.iid import IID
from harness.sources.shuffled import Shuffled
from harness.space import Study
from harness.specs import Transfer


def at(scale):
    automata = arms.automata(scale)
    context = scale.sizes[scale.size].synthetic.model.context

    def after(source, seed):
        return arms.treated(scale, arms.first(scale, source, seed), seed)

    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(seed):
        return arms.nca(scale, seed)

    def tokens_shuffled(seed):
        return after(Shuffled(automata, "tokens"), seed)

    def frames_shuffled(seed):
        return after(Shuffled(automata, "frames"), seed)

    def iid(seed):
        return after(IID(automata, sample_context=context), seed)

    def one_rule(seed):
        return after(arms.automata(scale, rules=1), seed)

    def hot(seed):
        return after(arms.automata(scale, temperature=1.0, band=None), seed)

    def copying(seed):
        return after(Copy(alphabet=automata.vocab_size - 2), seed)

    def permuted(seed):
        return arms.nca(scale, seed, transfer=Transfer(blocks="permuted"))

    def resampled(seed):
        return arms.nca(scale, seed, transfer=Transfer(blocks="resampled"))

    controls = [tokens_shuffled, frames_shuffled, iid, one_rule, hot, copying, permuted, resampled]
    return Study(
        name=f"c5_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, *controls],
        over={"seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.structure(controls=[control.__name__ for control in controls])],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
