"""What a run *is*: frozen values, and the digest that makes equal values the same artifact.

Nothing here says where or how something runs (workers, devices, paths): that would change an address without
changing a result. Standard library only, so that a plan of thousands of points needs no torch.
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self

from harness import modules
from harness.errors import InputError, number_fields, require, whole, whole_fields

IDENTITY_FREE: dict[str, bool] = {"identity": False}
"""Metadata of a dataclass field that says where something lies, not what it is; digests skip it."""
NEUTRAL: dict[str, bool] = {"neutral": True}
"""Metadata of a field added later, whose default is what was done before it: digests skip it at that default, so that
a new setting leaves the addresses of all stages that do not use it."""


class Source(Protocol):
    """Where sequences come from. A corpus has no length: sequence i is a pure function of (source, seed, i)."""

    version: ClassVar[int]
    """Raised whenever the same settings would give other tokens, so that old artifacts are not served."""
    stored: ClassVar[bool]
    """True if the source is itself a stage whose artifact (token shards) is read; False if it is generated."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def frame_tokens(self) -> int | None:
        """Tokens of one frame with its delimiters, or None where sequences have no frames."""

    def open(self, artifact: Any = None) -> "Sequences":
        """A reader; `artifact` is the stage's directory if `stored`, else None."""


class Located(Protocol):
    """A value that is identified by what lies somewhere else."""

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Names of what identifies it and can only be looked up on the network."""

    def resolved(self, network: bool = True) -> Self:
        """The same value with everything that identifies it filled in: the hash of local content and, with `network`,
        the commit of a revision that was left open."""

    @property
    def revisions(self) -> dict[str, str | None]:
        """What was looked up on the network, by name, for the study to write down."""

    def with_revisions(self, revisions: dict[str, str | None]) -> Self:
        """The same value at revisions that were looked up before."""


class Sequences(Protocol):
    """The reader of a source: NumPy arrays, `inputs` and `targets` int32 (n, context); -100 = not supervised."""

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """Training sequences numbered `index` (int64, (n,)) in the order that `seed` gives."""

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """The first `count` sequences of a fixed set that no training sequence comes from (rules or documents)."""

    def epoch(self, context: int) -> int | None:
        """Number of distinct training sequences, or None where they never repeat by design."""

    @property
    def token_bytes(self) -> Any | None:
        """UTF-8 bytes of every token id, int64 (vocab_size,); None where tokens stand for no text."""


@dataclass(frozen=True)
class Corpus:
    """A source in one order. `seed` numbers the order (and, for a generated source, the draws); two arms with an
    equal corpus see equal sequences. `epochs` is how often a sequence of a finite source may be seen."""

    source: Source
    seed: int = 0
    epochs: int = 1

    def __post_init__(self) -> None:
        whole_fields(self, seed=0, epochs=1)
        check_source(self.source)


VERSION = "write `version: ClassVar[int] = 1`, raised whenever the same settings give other tokens"
SOURCE = {
    "version": VERSION,
    "stored": "write `stored: ClassVar[bool] = False`",
    "vocab_size": "give the number of token ids",
    "frame_tokens": "give None, or the tokens of a frame with its delimiters",
    "open": "give what returns the reader of its sequences",
}
"""What a source has, and what to write where it is lacking."""


def check_source(source: Any) -> None:
    """Raise InputError unless `source` is a value as `Source` says; its sequences are not looked at."""
    kind = type(source)
    if (trouble := no_source(source)) is not None:
        raise InputError(f"Corpus.source = {source!r}: {trouble}")
    whole(f"{kind.__name__}.vocab_size", source.vocab_size, 1)
    if source.frame_tokens is not None:
        whole(f"{kind.__name__}.frame_tokens", source.frame_tokens, 3)


def no_source(value: Any) -> str | None:
    """Why `value` is no source, with the way out; None if it is one."""
    kind: Any = type(value)  # a key of a cache
    return _lacking(kind)


@functools.cache
def _lacking(kind: Any) -> str | None:
    if issubclass(kind, type):
        return "is a class; write its settings too, as in NCA()"
    settings = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    for name, way_out in SOURCE.items():
        if not hasattr(kind, name) and name not in settings:
            return f"{kind.__name__} has no {name}; {way_out}; docs/extending.md has a whole source"
    if "version" in settings:
        return f"its version is a setting; {VERSION}"
    if not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False):
        return "its settings are its address, so they must not change; write @dataclass(frozen=True)"
    return None


@dataclass(frozen=True)
class Llama:
    """Shape and initialisation scale of a Llama (SwiGLU, RMSNorm, rotary positions); defaults are the paper's 1.6B.

    `init_std` scales the unit-normal draws of the blocks' matrices, `embed_std` those of the embedding and head.
    `io_width` is the number of rows of embedding and head, where it is not the corpus's vocabulary: rows beyond that
    stand for no token, and the softmax is over all (the paper's release pads to 64,000).
    """

    depth: int = 24
    width: int = 2048
    heads: int = 32
    mlp: int = 8192
    context: int = 1024
    tied: bool = True
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    embed_std: float = 0.02
    io_width: int | None = field(default=None, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        whole_fields(self, depth=1, width=1, heads=1, mlp=1, context=1)
        if self.io_width is not None:
            whole_fields(self, io_width=1)
        require(isinstance(self.tied, bool), "Llama.tied", self.tied, "use True or False")
        require(
            self.width % self.heads == 0 and (self.width // self.heads) % 2 == 0,
            "Llama.heads",
            self.heads,
            f"must divide width = {self.width} into heads of even size (rotary positions turn pairs)",
        )
        positive = ("init_std", "embed_std", "rope_theta", "norm_eps")
        number_fields(self, *positive)
        for name in positive:
            require(getattr(self, name) > 0, f"Llama.{name}", getattr(self, name), "use a positive number")

    @property
    def body_params(self) -> int:
        """Parameters of blocks and final norm, without embedding and head."""
        block = 4 * self.width**2 + 3 * self.width * self.mlp + 2 * self.width
        return self.depth * block + self.width

    def params(self, vocab: int) -> int:
        """All parameters at a vocabulary of `vocab` tokens."""
        return self.body_params + vocab * self.width * (1 if self.tied else 2)

    def flops_per_token(self, vocab: int) -> int:
        """Training FLOPs a token, forward and backward: 6 N + 6 d V + 12 L d T (N without embeddings)."""
        return 6 * self.body_params + 6 * self.width * vocab + 12 * self.depth * self.width * self.context


@dataclass(frozen=True)
class Recipe:
    """How a stage is optimised: AdamW on matrices (norms undecayed), in `precision` on every device.

    `batch` is in sequences a step; `warmup`, `horizon` in tokens. `horizon` is where the schedule ends, the stage's
    own budget unless given: a stage may stop before it (the paper's 164M tokens end with the warmup).
    `wsd` is constant after warmup and falls as 1 - sqrt over the last `decay` of the horizon, `constant` never falls;
    `cosine` and `wsd` end at `final_lr` times `lr`. `attention_dropout` is drawn from the stage's seed and the
    sequence's number, whatever the batch and the ranks, which takes one forward pass a sequence.
    """

    lr: float
    batch: int = 512
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: int = 0
    horizon: int | None = None
    decay: float = 0.2
    final_lr: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float | None = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    attention_dropout: float = field(default=0.0, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        number_fields(self, "lr", "attention_dropout", "decay", "final_lr", "weight_decay", "beta1", "beta2", "eps")
        if self.clip is not None:
            number_fields(self, "clip")
        require(self.lr > 0, "Recipe.lr", self.lr, "use a positive number")
        require(
            0 <= self.attention_dropout < 1, "Recipe.attention_dropout", self.attention_dropout, "use a rate in [0, 1)"
        )
        whole_fields(self, batch=1, warmup=0)
        schedules = ("cosine", "wsd", "constant")
        require(self.schedule in schedules, "Recipe.schedule", self.schedule, "use 'cosine', 'wsd' or 'constant'")
        require(self.precision in ("fp32", "bf16"), "Recipe.precision", self.precision, "use 'fp32' or 'bf16'")
        require(0 < self.decay <= 1, "Recipe.decay", self.decay, "use a fraction of the horizon in (0, 1]")
        require(0 <= self.final_lr <= 1, "Recipe.final_lr", self.final_lr, "use a fraction of lr in [0, 1]")
        require(self.weight_decay >= 0, "Recipe.weight_decay", self.weight_decay, "use 0 or more")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"Recipe.{name}", getattr(self, name), "use a number in [0, 1)")
        require(self.eps > 0, "Recipe.eps", self.eps, "use a positive number")
        require(self.clip is None or self.clip > 0, "Recipe.clip", self.clip, "use a positive norm, or None")


@dataclass(frozen=True)
class Evaluation:
    """When and on how much a stage is measured, each time on the same `sequences` held-out sequences.

    A stage that shares its beginning with other budgets (`Train.shared_steps`) is measured `points` / 4 times as its
    steps double, whatever its budget, and as often in its decay; any other `points` times, a quarter of them spaced
    geometrically over the first tenth of its budget. Both also before the first step and after the last.

    `skip` leaves out every sequence that an evaluation on that many would measure, so that what is chosen by one set is
    judged on another.
    """

    points: int = 32
    sequences: int = 96
    skip: int = field(default=0, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        whole_fields(self, points=1, sequences=1, skip=0)

    def steps(self, total: int) -> list[int]:
        """Optimizer steps, ascending, after which a stage of `total` steps is evaluated; first 0, last `total`."""
        early = self.points // 4
        fractions = [0.01 * 10 ** (i / early) for i in range(early)]
        late = self.points - early
        fractions += [0.1 + 0.9 * (i + 1) / late for i in range(late)] if late > 1 else [1.0]
        return sorted({0, total} | {max(1, round(total * f)) for f in fractions})

    def nested_steps(self, shared: int, total: int) -> list[int]:
        """The same for a stage whose first `shared` steps are those of every longer budget: up to there they do not
        depend on the budget."""
        per_doubling = max(1, self.points // 4)
        doubled = (round(2 ** (i / per_doubling)) for i in range(per_doubling * total.bit_length()))
        decay = {shared + round((total - shared) * (i + 1) / per_doubling) for i in range(per_doubling)}
        return sorted({0, total} | {step for step in doubled if step <= total} | (decay if shared < total else set()))


@dataclass(frozen=True)
class Transfer:
    """What crosses from one stage into the next: everything but what `reinit` names.

    `reinit` holds modules: "embeddings" (with the head), "attention", "mlp", "norms" (all of them), "final_norm" (that
    one alone); attention, mlp and norms also in some layers: "attention[0:4]", "mlp[-2:]", "norms[3]" (`modules`).
    Re-initialised embeddings get unit-normal draws of the new stage's seed times `embed_std`, or, where it is None,
    times the standard deviation of the embedding that is replaced. `blocks` says what becomes of every kept matrix of
    attention and mlp: it crosses as "trained", or, as a control that needs no training, "permuted" within itself (equal
    values, no structure) or "resampled" (unit-normal draws of the new stage's seed at the trained Frobenius norm).
    """

    reinit: tuple[str, ...] = ("embeddings",)
    embed_std: float | None = None
    blocks: Literal["trained", "permuted", "resampled"] = "trained"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reinit", modules.spell(modules.parse(self.reinit)))
        if self.embed_std is not None:
            number_fields(self, "embed_std")
        require(
            self.embed_std is None or self.embed_std > 0, "Transfer.embed_std", self.embed_std, "use a positive number"
        )
        require(
            self.blocks in ("trained", "permuted", "resampled"),
            "Transfer.blocks",
            self.blocks,
            "use 'trained', 'permuted' or 'resampled'",
        )

    @classmethod
    def only(cls, *kept: str, **options: Any) -> Self:
        """The transfer of the modules `kept` alone (named as in `reinit`) into a model that is fresh elsewhere."""
        rest = modules.complement(modules.parse(kept, "Transfer.only"), "Transfer.only")
        return cls(reinit=modules.spell(rest), **options)

    def makes_anew(self, module: str, layer: int | None, depth: int) -> bool:
        """Whether the parameters of `module` in layer number `layer` of `depth` are re-initialised; `layer` is None for
        what lies in no layer: the embeddings and the final norm."""
        named = modules.parse(self.reinit)
        if layer is None:
            return ("final_norm" if module == "norms" else module) in named
        return any(layer in numbers for numbers in modules.layers(named.get(module, []), depth))


@dataclass(frozen=True)
class Train:
    """One training stage. The graph of a study is this value: `init` is the stage it starts from, or None."""

    version: ClassVar[int] = 2

    corpus: Corpus
    tokens: int
    model: Llama
    recipe: Recipe
    seed: int = 0
    evaluation: Evaluation = field(default_factory=Evaluation)
    init: "Train | None" = None
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        fields: dict[str, type] = {"corpus": Corpus, "model": Llama, "recipe": Recipe, "evaluation": Evaluation}
        optional: dict[str, type] = {"init": Train, "transfer": Transfer}
        for name, kind in (fields | optional).items():
            given = getattr(self, name)
            fits = isinstance(given, kind) or (given is None and name in optional)
            require(fits, f"Train.{name}", given, f"give a {kind.__name__}")
        whole_fields(self, seed=0, tokens=0)
        require(
            self.tokens >= self.step_tokens,
            "Train.tokens",
            self.tokens,
            f"one step is {self.recipe.batch} x {self.model.context} = {self.step_tokens} tokens; use at least that",
        )
        object.__setattr__(self, "tokens", self.tokens // self.step_tokens * self.step_tokens)
        require(
            self.io_width >= self.vocab_size,
            "Llama.io_width",
            self.model.io_width,
            f"the corpus has a vocabulary of {self.vocab_size} tokens; use at least that, or None",
        )
        horizon = self.recipe.horizon
        if horizon is not None:
            steps = whole("Recipe.horizon", horizon, 0) // self.step_tokens
            require(steps >= self.steps, "Recipe.horizon", horizon, f"must reach the stage's {self.tokens} tokens")
            # One address for "its own budget", however it was said.
            own = None if steps == self.steps else steps * self.step_tokens
            object.__setattr__(self, "recipe", replace(self.recipe, horizon=own))
        frame = self.corpus.source.frame_tokens
        require(
            frame is None or self.model.context > frame,
            "Llama.context",
            self.model.context,
            f"the first frame of {frame} tokens has no targets, so a longer context is needed",
        )
        require(
            (self.init is None) == (self.transfer is None),
            "Train.transfer",
            self.transfer,
            "init and transfer come together; compose stages with .after(warm)",
        )
        if self.init is not None and self.transfer is not None:
            self._check_transfer(self.init, self.transfer)

    def _check_transfer(self, init: "Train", transfer: Transfer) -> None:
        for name in ("depth", "width", "heads", "mlp", "tied", "rope_theta", "norm_eps"):
            old, new = getattr(init.model, name), getattr(self.model, name)
            if old != new:
                way_out = f"weights cross only between equal shapes; this stage has {new!r}"
                raise InputError(f"Train.init.model.{name} = {old!r}: {way_out}")
        old, new = init.io_width, self.io_width
        require(
            old == new or "embeddings" in transfer.reinit,
            "Transfer.reinit",
            transfer.reinit,
            f"the vocabulary changes from {old} to {new} tokens, so add 'embeddings'",
        )
        modules.check_depth(modules.parse(transfer.reinit), self.model.depth)
        if "embeddings" not in transfer.reinit and hasattr(self.corpus.source, "check_init"):
            self.corpus.source.check_init(init.corpus.source)

    @property
    def step_tokens(self) -> int:
        """Input tokens of one optimizer step."""
        return self.recipe.batch * self.model.context

    @property
    def steps(self) -> int:
        return self.tokens // self.step_tokens

    @property
    def horizon_steps(self) -> int:
        """Step at which the schedule ends."""
        return (self.recipe.horizon or self.tokens) // self.step_tokens

    @property
    def decay_step(self) -> int:
        """Step at which the decay of `wsd` begins."""
        return self.horizon_steps - max(1, round(self.recipe.decay * self.horizon_steps))

    @property
    def shared_steps(self) -> int:
        """Steps from the first that are the same for every longer budget of the recipe: to the decay of `wsd`, all of
        `constant`, and all of a `cosine` with a horizon of its own; else none."""
        if self.recipe.schedule == "wsd":
            return max(0, min(self.steps, self.decay_step))
        return self.steps if self.recipe.schedule == "constant" or self.recipe.horizon is not None else 0

    @property
    def evaluation_steps(self) -> list[int]:
        """Optimizer steps, ascending, after which the stage is measured."""
        if self.shared_steps:
            return self.evaluation.nested_steps(self.shared_steps, self.steps)
        return self.evaluation.steps(self.steps)

    @functools.cached_property
    def shared_recipe(self) -> Recipe:
        """The recipe as far as the shared steps see it: nothing of a decay has come yet."""
        if self.recipe.schedule == "cosine":
            return self.recipe
        anew = {"schedule": "constant", "horizon": None, "decay": Recipe.decay, "final_lr": Recipe.final_lr}
        return replace(self.recipe, **anew)  # type: ignore[arg-type]

    @property
    def beginning(self) -> str:
        """Equal for two stages if, and only if, they have the same states after as many shared steps."""
        own = [f.name for f in dataclasses.fields(Train) if f.name not in ("tokens", "recipe", "init")]
        init = None if self.init is None else digest(self.init)
        return canonical_json([*(getattr(self, name) for name in own), self.shared_recipe, init])

    def state_at(self, steps: int) -> "State":
        """The state after the first `steps` of the shared steps, one value for all budgets that go through it."""
        recipe = self.shared_recipe
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Train)}
        return State(**{**fields, "tokens": steps * self.step_tokens, "recipe": recipe})

    @property
    def vocab_size(self) -> int:
        return self.corpus.source.vocab_size

    @property
    def io_width(self) -> int:
        """Rows of the embedding and the head."""
        return self.model.io_width or self.vocab_size

    @property
    def flops(self) -> int:
        """Training FLOPs of this stage alone."""
        return self.tokens * self.model.flops_per_token(self.io_width)

    def after(self, warm: "Train", transfer: Transfer | None = None) -> "Train":
        """This stage, started from `warm`'s weights instead of fresh ones."""
        return replace(self, init=warm, transfer=transfer or Transfer())

    def chain(self) -> Iterator["Train"]:
        """The training stages from the first to this one."""
        if self.init is not None:
            yield from self.init.chain()
        yield self


@dataclass(frozen=True)
class State(Train):
    """A training stage that leaves behind all that is needed to go on (weights, moments, data position, curve) instead
    of weights: budgets that begin alike go on from it. What goes on from it is bit-equal to what was never stopped."""


Stage = Any
"""A value with a digest and an artifact: a `Train`, or a `stored` source."""


def parents(stage: Stage) -> dict[str, Stage]:
    """The stages whose artifacts `stage` reads, by the role that they play."""
    if not isinstance(stage, Train):
        return dict(getattr(stage, "reads", {}))
    found: dict[str, Stage] = {}
    if stage.corpus.source.stored:
        found["tokens"] = stage.corpus.source
    if stage.init is not None:
        found["init"] = stage.init
    return found


PLAIN = frozenset((str, bool, int, type(None)))
NEVER = object()
"""Equal to nothing that a field can hold."""


@functools.cache
def _identity(kind: type) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Of a dataclass: the fields that make its identity, each with the default at which it is skipped, if any, and its
    type and version; None of any other type."""
    if not dataclasses.is_dataclass(kind):
        return None
    head: dict[str, Any] = {"type": _type_name(kind)}
    if hasattr(kind, "version"):
        head["version"] = kind.version
    own = [f for f in dataclasses.fields(kind) if f.metadata.get("identity", True)]
    return {f.name: f.default if f.metadata.get("neutral") else NEVER for f in own}, head


def _type_name(kind: type) -> str:
    """A name that tells a class of a search space from one of the harness, or of another file, with the same name."""
    if kind.__module__.partition(".")[0] == "harness":
        return kind.__name__
    file = re.sub("_[0-9a-f]{8}$", "", kind.__module__)  # where a search space lies is no part of it
    return f"{file}.{kind.__name__}"


def canonical(value: Any, path: str = "") -> Any:
    """`value` as plain JSON data: dataclasses as objects with their type and version, 1 and 1.0 the same number.

    Raises InputError for what has no canonical form (NaN, infinities, callables, anything not a value).
    """
    kind: Any = type(value)
    if kind in PLAIN:
        return value
    identity = _identity(kind)
    if identity is not None:
        names, head = identity
        out = dict(head)
        for name, neutral in names.items():
            inner = getattr(value, name)
            if neutral is not NEVER and inner == neutral:
                continue
            out[name] = inner if type(inner) in PLAIN else canonical(inner, f"{path}.{name}" if path else name)
        return out
    if isinstance(value, float):
        require(math.isfinite(value), path or "value", value, "has no canonical form; use a finite number")
        return int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return [canonical(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: canonical(v, f"{path}.{k}") for k, v in value.items()}
    raise InputError(f"{path or 'value'} = {value!r}: a {kind.__name__} has no canonical form; use plain values")


_JSON: dict[type, Callable[[Any], str]] = {
    str: json.encoder.encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
    int: repr,
    type(None): lambda _: "null",
}
"""How a plain value is written as JSON."""


def canonical_json(value: Any, path: str = "") -> str:
    """`value` in its canonical form as one line of ASCII JSON, keys in order; also of what `canonical` gave before."""
    kind: Any = type(value)
    if kind in _JSON:
        return _JSON[kind](value)
    if kind is float and math.isfinite(value):
        return repr(int(value) if value.is_integer() else value)
    if kind is list or kind is tuple:
        return "[" + ",".join([canonical_json(v, f"{path}[{i}]") for i, v in enumerate(value)]) + "]"
    fields = _json_fields(kind)
    if fields is None:
        return json.dumps(canonical(value, path), sort_keys=True, separators=(",", ":"), allow_nan=False)
    # Kept in the value, as its digest is: thousands of stages share models, recipes and sources. Not in stages, which
    # hold each other and travel to workers.
    keep = not issubclass(kind, Train) and hasattr(value, "__dict__")
    if keep and "_json" in vars(value):
        return str(vars(value)["_json"])
    parts = []
    for name, key, neutral in fields:
        if name is None:
            parts.append(key)
            continue
        inner = getattr(value, name)
        if neutral is not NEVER and inner == neutral:
            continue
        plain = _JSON.get(type(inner))
        text = plain(inner) if plain is not None else canonical_json(inner, f"{path}.{name}" if path else name)
        parts.append(key + text)
    found = "{" + ",".join(parts) + "}"
    if keep:
        object.__setattr__(value, "_json", found)
    return found


@functools.cache
def _json_fields(kind: type) -> list[tuple[str | None, str, Any]] | None:
    """What `canonical_json` writes of a dataclass, in the order of the keys: each field's name, its key and the default
    at which it is skipped; None and the whole text for type and version. None of any other type."""
    identity = _identity(kind)
    if identity is None:
        return None
    names, head = identity
    found: dict[str, tuple[str | None, str, Any]] = {
        k: (None, f"{json.dumps(k)}:{json.dumps(v)}", NEVER) for k, v in head.items()
    }
    found |= {name: (name, f"{json.dumps(name)}:", neutral) for name, neutral in names.items()}
    return [found[name] for name in sorted(found)]


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: the address of its artifact."""
    # Kept in the frozen value itself: a cache by equality would take True for 1, and needs hashable fields.
    kept = getattr(value, "_digest", None)
    if kept is not None:
        return str(kept)
    found = hashlib.sha256(canonical_json(value).encode()).hexdigest()
    if dataclasses.is_dataclass(value) and hasattr(value, "__dict__"):
        object.__setattr__(value, "_digest", found)
    return found


def short(value: Any) -> str:
    """The first 12 hex digits of the digest, for people."""
    return digest(value)[:12]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Dotted names of the fields in which two values differ, in canonical form; whole stages are not entered."""
    if a is b:
        return []
    if type(a) is type(b) and type(a) in PLAIN:
        return [] if a == b else [path]
    if type(a) is type(b) and dataclasses.is_dataclass(a) and not (path and isinstance(a, Train)):
        if path and canonical_json(a) == canonical_json(b):
            return []
        found: list[str] = []
        for f in dataclasses.fields(a):
            if f.metadata.get("identity", True):
                name = f"{path}.{f.name}" if path else f.name
                found += differences(getattr(a, f.name), getattr(b, f.name), name)
        return found
    if isinstance(a, Train) and isinstance(b, Train):
        return [] if digest(a) == digest(b) else [path]
    return [] if canonical(a) == canonical(b) else [path]
