"""The loss of the model, in chunks, against the plain one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness import layout, llama, model
from harness.specs import Llama


def problem(rows: int, width: int, vocab: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weights and targets, some of them not supervised."""
    draw = torch.Generator().manual_seed(rows + 100 * vocab)
    hidden, weight = torch.randn(rows, width, generator=draw), torch.randn(vocab, width, generator=draw) / width**0.5
    targets = torch.randint(vocab, (rows,), generator=draw)
    targets[torch.rand(rows, generator=draw) < 0.3] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum", ignore_index=-100)


@settings(max_examples=25)
@given(rows=st.integers(1, 40), width=st.integers(1, 9), vocab=st.integers(2, 150), chunk=st.integers(1, 50))
def test_the_loss_in_chunks_is_the_loss(rows: int, width: int, vocab: int, chunk: int) -> None:
    hidden, weight, targets = problem(rows, width, vocab)
    want = torch.autograd.grad(3 * plain(hidden, weight, targets), (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layout.LOGIT_ROWS, "cpu", chunk)
        loss = llama.SummedCrossEntropy.apply(hidden, weight, targets, torch.float32)
        got = torch.autograd.grad(3 * loss, (hidden, weight))
        nats, hits = llama.score(hidden, weight, targets, torch.float32)
    assert loss.item() == pytest.approx(plain(hidden, weight, targets).item(), rel=1e-5, abs=1e-5)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert nats.sum().item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
    assert torch.equal(nats == 0, targets < 0)
    assert torch.equal(hits, (hidden @ weight.T).argmax(-1) == targets)


def test_a_target_of_no_probability_has_a_loss_and_a_gradient() -> None:
    hidden = torch.tensor([[300.0, 0.0], [-300.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    loss = llama.SummedCrossEntropy.apply(hidden, weight, torch.tensor([2, 0]), torch.float32)
    assert loss.item() == pytest.approx(1200)
    (grad,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(grad, torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))


def test_in_bfloat16_it_is_the_loss_of_autocast() -> None:
    hidden, weight, targets = problem(200, 32, 300)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = plain(hidden, weight, targets)
    want = torch.autograd.grad(theirs, (hidden, weight))
    loss = llama.SummedCrossEntropy.apply(hidden, weight, targets, torch.bfloat16)
    got = torch.autograd.grad(loss, (hidden, weight))
    exact = torch.autograd.grad(plain(hidden, weight, targets), (hidden, weight))
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    for mine, its, true in zip(got, want, exact, strict=True):
        assert (mine - true).norm() <= 1.1 * (its - true).norm()


@pytest.mark.parametrize("tied", [True, False])
def test_logits_never_exist_whole(tied: bool) -> None:
    spec = Llama(depth=1, width=8, heads=1, mlp=8, context=64, tied=tied)
    net = model.build(spec, vocab=5000)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    inputs = torch.randint(5000, (64, 64), generator=torch.Generator().manual_seed(0))
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Largest():
        model.summed_nats(net, inputs, inputs.roll(-1, 1), "fp32").backward()
        model.score(net, inputs, inputs.roll(-1, 1), "fp32")
    assert largest < inputs.numel() * 5000 / 4
    assert net.lm_head.weight.grad is not None


def test_a_model_from_meta_is_the_model() -> None:
    spec = Llama(depth=2, width=8, heads=2, mlp=8, context=16)
    here, there = model.build(spec, vocab=20), model.build(spec, vocab=20, device="meta")
    assert {p.device.type for p in there.parameters()} == {"meta"}
    model.materialise(there, "cpu")
    assert model.weights(here).keys() == model.weights(there).keys()
    for p in here.parameters():
        torch.nn.init.normal_(p)
    with torch.no_grad():
        for name, parameter in model.weights(there).items():
            parameter.copy_(model.weights(here)[name])
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(model.logits(here, tokens, "fp32"), model.logits(there, tokens, "fp32"))


def test_attention_is_causal_by_a_flag_and_not_by_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model.build(Llama(depth=2, width=8, heads=2, mlp=8, context=16), vocab=20).train()
    for p in net.parameters():
        torch.nn.init.normal_(p)
    calls: list[tuple[object, object]] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def noted(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append((kwargs.get("attn_mask"), kwargs.get("is_causal")))
        return attention(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    tokens = torch.arange(16)[None]
    model.summed_nats(net, tokens, tokens, "fp32")
    assert calls == [(None, True)] * 2
