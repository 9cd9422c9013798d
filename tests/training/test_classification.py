"""A fine-tuning step against the cross entropy written out."""

import math

import pytest
import torch
from torch import nn

from rspnet_cli.training.classification import classification_step


@pytest.mark.parametrize("passes", [1, 2, 3, 6])
def test_loss_gradient_and_figures_are_those_of_the_formula(passes: int) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    classes = torch.tensor([0, 6, 3, 3, 1, 5])
    layer = nn.Linear(4, 7).double()
    figures = classification_step(layer, inputs, classes, passes=passes)

    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    logits = [
        [sum(w * x for w, x in zip(row, values, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        for values in inputs.tolist()
    ]
    total, ranks = 0.0, []
    gradient = torch.zeros(7, 4, dtype=torch.float64)
    for row, (scores, label) in enumerate(zip(logits, classes.tolist(), strict=True)):
        shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        total -= math.log(shares[label]) / 6
        ranks.append(1 + sum(score > scores[label] for score in scores))
        for label_, share in enumerate(shares):
            gradient[label_] += (share - (label_ == label)) / 6 * inputs[row]
    assert figures.loss.item() == pytest.approx(total, rel=1e-12)
    assert not figures.loss.requires_grad
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, gradient, rtol=1e-10, atol=1e-12)
    assert float(figures.top1) == pytest.approx(sum(rank == 1 for rank in ranks) / 6)
    assert float(figures.top5) == pytest.approx(sum(rank <= 5 for rank in ranks) / 6)
    assert 0 < sum(rank <= 5 for rank in ranks) < 6, "the draw tells nothing about top-5"


def test_of_equal_logits_none_is_right() -> None:
    figures = classification_step(nn.Identity(), torch.zeros(2, 6, requires_grad=True), torch.tensor([0, 5]))
    assert (float(figures.top1), float(figures.top5)) == (0.0, 0.0)
