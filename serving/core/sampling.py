"""Drawing the next token of every row of a batch, each row by its own temperature, top-p and random number.

Shapes: B rows, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def choose(logits_BV: Tensor, *, temperature_B: Tensor, top_p_B: Tensor, uniform_B: Tensor) -> Tensor:
    """Token ids B. Temperature 0 takes the likeliest; the others invert the cumulative distribution at `uniform_B`.

    `uniform_B` is in [0, 1). The random numbers come from outside, one stream a row, so that a seed gives the
    same answer whoever shares the batch (up to the rounding of the logits).
    """
    logits_BV = logits_BV.float()
    greedy_B = logits_BV.argmax(-1)
    if bool((temperature_B == 0).all()):
        return greedy_B
    scale_B1 = temperature_B.clamp(min=1e-6).unsqueeze(-1)
    probabilities_BV = torch.softmax(logits_BV / scale_B1, -1)
    if bool((top_p_B < 1).any()):
        probabilities_BV = nucleus(probabilities_BV, top_p_B)
    # Double: a float sum over a large vocabulary would lose the rare tokens.
    cumulative_BV = probabilities_BV.double().cumsum(-1)
    target_B1 = (uniform_B.double() * cumulative_BV[:, -1]).unsqueeze(-1)
    drawn_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1)
    drawn_B = drawn_B.clamp(max=logits_BV.shape[-1] - 1)
    return torch.where(temperature_B == 0, greedy_B, drawn_B)


def nucleus(probabilities_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """The probabilities with all but the smallest set that reaches `top_p` put to zero (not renormalized).

    Holtzman et al., "The Curious Case of Neural Text Degeneration", 2019.
    """
    ordered_BV, index_BV = probabilities_BV.sort(dim=-1, descending=True)
    before_BV = pad(ordered_BV.cumsum(-1)[:, :-1], (1, 0))
    kept_BV = ordered_BV.masked_fill(before_BV >= top_p_B.unsqueeze(-1), 0.0)
    return torch.zeros_like(probabilities_BV).scatter(-1, index_BV, kept_BV)
