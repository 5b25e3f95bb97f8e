"""What a reader must give, held against what it gives: a source of a search space is wrong in one of these ways, and
else trains on the wrong tokens or fails far from its cause."""

from typing import Any

import numpy as np

from harness.errors import InputError, require
from harness.specs import Sequences, Source, check_source

LOOKED_AT = (0, 1, 2, 12_345)
"""Numbers of the sequences that `look` asks for."""
UNSUPERVISED = -100


def checked(source: Source, read: Any, count: int, context: int) -> tuple[Any, Any]:
    """The inputs and targets that a reader of `source` gave, as they are. Raises InputError unless both are int32
    (count, context), inputs are token ids, and targets token ids or -100."""
    kind, vocab = type(source).__name__, source.vocab_size
    pair = isinstance(read, tuple | list) and len(read) == 2
    require(pair, f"{kind}.sequences", type(read).__name__, "return two arrays, inputs and targets")
    for name, array in zip(("inputs", "targets"), read, strict=True):
        field = f"{kind}.sequences, {name}"
        require(isinstance(array, np.ndarray), field, type(array).__name__, "return a NumPy array")
        way_out = f"{count} sequences of {context} tokens are int32 {(count, context)}"
        require(array.shape == (count, context), field, array.shape, f"{way_out}; return that shape")
        require(array.dtype == np.int32, field, array.dtype.name, f"{way_out}; end with .astype(np.int32)")
        lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
        way_out = f"vocab_size is {vocab}, so ids are 0 to {vocab - 1}"
        require(highest < vocab, field, highest, f"{way_out}; mend the tokens or vocab_size")
        if lowest < 0 and name == "targets":  # most targets of most sources are supervised
            lowest = int(array[array != UNSUPERVISED].min(initial=0))
        require(lowest >= 0, field, lowest, f"{way_out}; only targets may be {UNSUPERVISED}, for not supervised")
    return read[0], read[1]


def look(source: Source, reader: Sequences, context: int) -> None:
    """Raise InputError unless a few sequences of a generated `source` are as `checked` and `Sequences` say: each a
    function of seed and number, whatever is asked for with it, and none of those that are held out."""
    check_source(source)
    kind = type(source).__name__
    for name in ("sequences", "held_out", "epoch", "token_bytes"):
        if not hasattr(reader, name):
            raise InputError(
                f"{kind}.open = {type(reader).__name__}: has no {name}; derive {kind} from "
                "harness.sources.generated.Generated, which has all that a reader needs"
            )
    index = np.array(LOOKED_AT, np.int64)
    inputs, targets = checked(source, reader.sequences(0, index, context), len(index), context)
    require(bool((targets >= 0).any()), f"{kind}.sequences, targets", UNSUPERVISED, "none is supervised; let some be")
    alone = checked(source, reader.sequences(0, index[1:2], context), 1, context)
    same = bool((alone[0] == inputs[1]).all() and (alone[1] == targets[1]).all())
    way_out = (
        "asked for alone it is another than among others; let it depend on settings, seed and its number alone, with "
        "rng.keys and rng.words of harness.rng"
    )
    require(same, f"{kind}.sequences, sequence", LOOKED_AT[1], way_out)
    held_out = checked(source, reader.held_out(len(index), context), len(index), context)[0]
    first = reader.sequences(0, np.arange(len(index)), context)[0]
    if bool((held_out == first).all() and (first != first[0]).any()):
        raise InputError(
            f"{kind}.held_out = the first sequences of seed 0: training stages have them too; draw them with the seed "
            "harness.sources.HELD_OUT"
        )
