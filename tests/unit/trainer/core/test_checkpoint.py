"""A training that goes on from its state."""

from pathlib import Path

import torch

from tests.unit.trainer.core.language import policy
from trainer.adapters.policies import Policy
from trainer.adapters.trees import from_file, to_bytes
from trainer.core.checkpoint import Order
from trainer.core.ppo import improve
from trainer.core.ppo_config import PPOConfig, PPOReport
from trainer.core.ppo_update import State
from trainer.core.rollout import SamplingConfig

CONFIG = PPOConfig(
    iterations=3, prompts_per_iteration=2, answers_per_prompt=2, epochs=2, minibatches=2, closing_prompts=2,
    kl_budget=100.0, sampling=SamplingConfig(max_new_tokens=4),
)  # fmt: skip
PROMPTS = [[3, 4], [5, 6, 7], [8]]


def first_feature(features_NF: torch.Tensor) -> torch.Tensor:
    return features_NF[:, 0]


def trained(resume: State | None, states: list[State], config: PPOConfig = CONFIG) -> tuple[Policy, PPOReport]:
    made = policy()

    def keep(state: State) -> None:
        states.append(from_bytes(to_bytes(state)))

    return made, improve(made, first_feature, PROMPTS, config, seed=5, resume=resume, on_state=keep)


def from_bytes(content: bytes) -> State:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state"
        file.write_bytes(content)
        return from_file(str(file))


def parameters(made: Policy) -> list[torch.Tensor]:
    return [p.detach() for p in (*made.adapter_parameters(), *made.value_parameters())]


def test_a_training_taken_up_after_any_iteration_comes_to_the_same_weights_and_report() -> None:
    states: list[State] = []
    whole, report = trained(None, states)
    assert [state.iteration for state in states] == [1, 2, 3]
    for state in states:
        again, other = trained(state, [])
        assert other == report
        assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(again), strict=True))


def test_the_state_that_was_within_the_budget_is_gone_back_to_after_a_resumption_too() -> None:
    """The first state after an update is beyond a budget of nothing; the one started from is kept."""
    config = PPOConfig(**{**vars(CONFIG), "kl_budget": 1e-6, "learning_rate": 0.05})
    states: list[State] = []
    whole, report = trained(None, states, config)
    assert report.stopped == "kl_budget" and len(states) == 1
    again, other = trained(states[0], [], config)
    assert other == report
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(again), strict=True))


def test_an_order_goes_on_with_what_is_left_of_its_round() -> None:
    whole = Order(5, torch.Generator().manual_seed(1)).take(12)
    generator = torch.Generator().manual_seed(1)
    first = Order(5, generator)
    begun = first.take(7)
    state = generator.get_state()
    later = torch.Generator()
    later.set_state(state)
    assert begun + Order(5, later, first.left).take(5) == whole
    assert sorted(whole[:5]) == sorted(whole[5:10]) == [0, 1, 2, 3, 4]
