"""Drawing tokens, with expected values derived by hand."""

import torch

from serving.core.sampling import choose, nucleus


def draw(probabilities: list[float], uniform: float, *, temperature: float = 1.0, top_p: float = 1.0) -> int:
    logits_BV = torch.tensor([probabilities]).log()
    one = torch.ones(1)
    token = choose(logits_BV, temperature_B=one * temperature, top_p_B=one * top_p, uniform_B=one.double() * uniform)
    return int(token[0])


def test_a_uniform_number_falls_into_the_slice_of_its_token() -> None:
    # Cumulative: 0.5, 0.8, 1.0
    assert [draw([0.5, 0.3, 0.2], u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.999)] == [0, 0, 1, 1, 2, 2]


def test_temperature_zero_takes_the_likeliest_whatever_the_number() -> None:
    assert [draw([0.2, 0.5, 0.3], u, temperature=0.0) for u in (0.0, 0.999)] == [1, 1]


def test_a_low_temperature_sharpens() -> None:
    # At 0.5 the probabilities are squared: 0.36, 0.16 -> 0.692, 0.308.
    assert draw([0.6, 0.4], 0.65) == 1
    assert draw([0.6, 0.4], 0.65, temperature=0.5) == 0


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    kept = nucleus(torch.tensor([[0.1, 0.5, 0.4], [0.1, 0.5, 0.4]]), torch.tensor([0.6, 0.5]))
    assert torch.equal(kept, torch.tensor([[0.0, 0.5, 0.4], [0.0, 0.5, 0.0]]))
    assert draw([0.1, 0.5, 0.4], 0.05, top_p=0.6) == 1


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    assert draw([0.0, 1.0], 0.0) == 1


def test_rows_of_one_batch_are_drawn_each_by_its_own_rule() -> None:
    logits_BV = torch.tensor([[0.7, 0.3]] * 3).log()
    tokens = choose(
        logits_BV,
        temperature_B=torch.tensor([0.0, 1.0, 1.0]),
        top_p_B=torch.tensor([1.0, 1.0, 0.5]),
        uniform_B=torch.tensor([0.9, 0.9, 0.9], dtype=torch.float64),
    )
    assert tokens.tolist() == [0, 1, 0]
