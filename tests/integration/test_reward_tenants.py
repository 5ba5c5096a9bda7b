"""Two tenants of opposite tastes in the tables: the reward model alone, and its report."""

import threading
from pathlib import Path

from schemas import tables
from tests.integration import trainer_lake as lake
from trainer import app
from trainer.settings import RewardSettings


def test_tenants_of_opposite_tastes_have_reward_weights_of_their_own(tmp_path: Path) -> None:
    """North likes polite answers, south and west the others; west has three people, so it has the common weights."""
    base, data = lake.tiny_base(tmp_path / "base"), tmp_path / "data"
    tenants = ["north" if n % 4 < 2 else "south" for n in range(200)] + ["west"] * 40
    liked = [(n % 2 == 0) == (tenant == "north") for n, tenant in enumerate(tenants)]
    users = [f"u{n // 4 % 10}" if tenant != "west" else f"u{n % 3}" for n, tenant in enumerate(tenants)]
    every = list(zip(range(240), tenants, liked, users, strict=True))
    write = lake.write
    write(data, tables.RATINGS, [lake.rating(n, tenant=t, label=up, rater_id=who) for n, t, up, who in every])
    write(data, tables.RESPONSES, [lake.response(n, tenant=t, user_id=who) for n, t, _, who in every])
    reward = RewardSettings(by="tenant", domain_labels=30, heads=2, l2_grid=(0.003,))
    report = app.run_reward_only(lake.settings(data, base, reward=reward), stop=threading.Event())
    told = {domain.name: domain for domain in report.domains}
    assert {name: (d.own, d.users) for name, d in told.items()} == {
        "north": (True, 10), "south": (True, 10), "west": (False, 3),
    }  # fmt: skip
    north, south = told["north"], told["south"]  # the common weights are more like south's: so like west
    assert north.difference is not None and north.difference.low > 0.05
    assert south.own_accuracy is not None and south.own_accuracy.mean > 0.75
    assert told["west"].difference is None and report.own_l2 == 0.003
    table = report.table()
    assert "own and common weights, by tenant" in table and "west: common weights" in table
    assert report.rating_accuracy is not None and report.rating_accuracy.mean > 0.75
