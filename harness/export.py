"""From a published training stage to a directory that transformers loads: weights, configuration, tokenizer, a card.

Everything is read from the store, so a stage can be exported wherever its store is seen, without its search space.
"""

import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.plan import si
from harness.sources.tokenizer import BPE, from_json
from harness.specs import canonical_json, digest
from harness.store import Store

LEAST_DIGITS = 6


def export(target: str, directory: Path, store: Store) -> list[str]:
    """Write the training stage whose digest starts with `target` to `directory`, whole or not at all; it must be new or
    empty. Returns what was written, in lines for people.

    Raises InputError for what is no finished training stage, is damaged, or cannot be written.
    """
    place = free_place(directory)
    address = find(target, store)
    attempt, manifest = open_trained(address, store)
    source = manifest["spec"]["corpus"]["source"]
    tokenizer = read_tokenizer(manifest, store) if source["type"] in ("Text", "Answers") else None
    config = json.loads((attempt / "weights" / "config.json").read_text("utf-8"))
    end = None if tokenizer is None else from_json(dump(tokenizer)).token_to_id(end_of_text(source))
    # Every document of the corpus follows an end-of-text, so that token begins a text as well as it ends one.
    config |= {"dtype": "float32", "bos_token_id": end, "eos_token_id": end, "use_cache": True}
    files = {"config.json": dump(config), "README.md": card(manifest)}
    if tokenizer is not None:
        files["tokenizer.json"] = dump(tokenizer)
        files["tokenizer_config.json"] = dump(tokenizer_config(end_of_text(source), config["max_position_embeddings"]))
        files["generation_config.json"] = dump({"bos_token_id": end, "eos_token_id": end})
    write(place, files, attempt / "weights" / "model.safetensors")
    lines = [f"{describe(manifest['spec'])} {address[:12]}: written to {place}"]
    if tokenizer is None:
        lines.append(f"no tokenizer: the tokens of {source['type']} stand for no text")
    return lines


def find(target: str, store: Store) -> str:
    """The digest of the one published stage that `target`, its first digits, can mean."""
    digits = target.lower()
    known = re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},64}}", digits) is not None
    require(known, "digest", target, f"give at least its first {LEAST_DIGITS} hex digits, as `status` shows them")
    found = store.starting_with(digits)
    require(bool(found), "digest", target, f"no stage in {store.root} starts with it; `status` lists those of a study")
    require(len(found) == 1, "digest", target, f"stands for {len(found)} stages: {', '.join(found)}; give more digits")
    return found[0]


def open_trained(address: str, store: Store) -> tuple[Path, dict[str, Any]]:
    """The directory and manifest of a training stage that has weights, after a look at every byte."""
    manifest = read(address, store)
    kind, status = manifest["kind"], manifest["status"]
    require(kind == "Train", "digest", address, f"is a {kind}, which has no weights; name a training stage")
    require(status == "finished", "digest", address, f"has {status}, so it has no weights; name a finished stage")
    attempt = store.open(address)
    assert attempt is not None
    return attempt, manifest


def read(address: str, store: Store) -> dict[str, Any]:
    """The manifest of a published stage whose checksums hold."""
    damage = store.damage(address)
    require(not damage, "digest", address, f"is damaged: {'; '.join(damage)}; `run` its study to make it anew")
    manifest = store.manifest(address)
    if manifest is None:
        raise InputError(f"digest = {address!r}: is not finished in {store.root}; `run` its study")
    return manifest


def read_tokenizer(manifest: dict[str, Any], store: Store) -> dict[str, Any]:
    """The tokenizer of the text that a stage was trained on, as the JSON of the `tokenizers` library."""
    text = manifest["parents"]["tokens"]
    read(text, store)
    attempt = store.open(text)
    assert attempt is not None
    tokenizer = json.loads((attempt / "tokenizer.json").read_text("utf-8"))
    # The harness encodes documents whole and adds nothing to them but end-of-text; a pretrained tokenizer may do more.
    return tokenizer | {"truncation": None, "padding": None, "post_processor": None}


def end_of_text(source: dict[str, Any]) -> str:
    """The token after every document of a `Text`, or every example of an `Answers`, by its canonical form."""
    return source.get("text", source)["tokenizer"].get("end_of_text", BPE.end_of_text)


def tokenizer_config(end: str, context: int) -> dict[str, Any]:
    """What transformers must know beside tokenizer.json. A special token that a text spells out is text, as in
    training."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def describe(spec: dict[str, Any]) -> str:
    """A few words on a training stage, by its canonical form."""
    return f"{spec['corpus']['source']['type']} {si(spec['tokens'])} seed {spec['seed']}"


def chain(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The training stages that weights came through, the last one first, each in its canonical form."""
    return [spec] if spec["init"] is None else [spec, *chain(spec["init"])]


def card(manifest: dict[str, Any]) -> str:
    """The model card: what was trained, on what, how well it does, and what it was made with."""
    spec, held_out = manifest["spec"], manifest["held_out"]
    model = spec["model"]
    stages = "\n".join(f"| {describe(stage)} | `{digest(stage)}` |" for stage in chain(spec))
    loss = "not finite" if held_out["loss_nats"] is None else f"{held_out['loss_nats']:.4f} nats a token"
    if held_out["loss_bits_per_byte"] is not None:
        loss += f", {held_out['loss_bits_per_byte']:.4f} bits a byte"
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {describe(spec)}

A Llama of {si(manifest["params"])} parameters ({model["depth"]} layers, width {model["width"]}, context \
{model["context"]}), trained by the NCA scaling-study harness.

- Held-out loss: {loss}, over {held_out["targets"]} targets.
- Weights are float32; training computed in {spec["recipe"]["precision"]}.
- Made with {versions}; harness at commit {manifest["commit"] or "unknown"}. Loads in transformers 5.

Stages that the weights came through, the last one first:

| stage | digest |
|---|---|
{stages}

The specification, whose SHA-256 is the digest:

```json
{canonical_json(spec)}
```
"""


def free_place(directory: Path) -> Path:
    """The absolute path of `directory`; InputError unless it is new or empty."""
    place = directory.resolve()
    try:
        taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    except OSError as e:
        raise InputError(f"DIR = {str(directory)!r}: cannot be read ({e.strerror}); name another") from e
    require(not taken, "DIR", str(directory), "is there and not an empty directory; name a new one")
    return place


def write(place: Path, files: dict[str, str], weights: Path) -> None:
    """Make the directory `place` of texts by name and a copy of `weights`, beside it first, then under its name."""
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        shutil.copyfile(weights, part / weights.name)
        for name, text in files.items():
            (part / name).write_text(text, "utf-8")
        os.rename(part, place)  # onto an empty directory at most
    except OSError as e:
        raise InputError(f"DIR = {str(place)!r}: cannot be written ({e.strerror}); name another") from e
    finally:
        shutil.rmtree(part, ignore_errors=True)
