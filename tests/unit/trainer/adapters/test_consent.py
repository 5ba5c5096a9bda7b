"""What may not be learned from is in no set of a data set that is built from the tables."""

from pathlib import Path

from schemas import tables
from tests.integration import trainer_lake as lake
from trainer.adapters.lake import TrainerLake
from trainer.core.dataset import SplitConfig, build

PERMITTED, WITHDRAWN = ["training", "service"], ["service"]


def test_a_withdrawn_consent_reaches_no_set_even_where_gold_has_not_heard_of_it(tmp_path: Path) -> None:
    lake.write(tmp_path, tables.RATINGS, [lake.rating(n) for n in range(300)])
    lake.write(
        tmp_path,
        tables.PREFERENCES,
        [
            lake.preference(n, chosen_response_id=lake.response_id(n), rejected_response_id=lake.response_id(n + 1))
            for n in range(0, 300, 2)
        ],
    )
    lake.write(tmp_path, tables.RESPONSES, [lake.response(n, purposes=PERMITTED) for n in range(300)])
    # The rating of answer 3 is taken back; consent is withdrawn for answers 4 and 9, and answer 12 is erased.
    lake.write(tmp_path, tables.RATINGS, [lake.rating(3, revision=2, retracted=True)])
    again = [lake.response(n, revision=2, purposes=WITHDRAWN) for n in (4, 9)]
    lake.write(tmp_path, tables.RESPONSES, [*again, lake.response(12, revision=2, purposes=PERMITTED, retracted=True)])

    found = TrainerLake(tmp_path / "lake")
    pinned = found.read(found.pins())
    data = build(pinned.pairs, pinned.ratings, pinned.prompts, SplitConfig(min_labels=1, judge_only_share=0.2))
    parts = (data.train, data.held_out, data.judge, data.judge_only)
    used = {i for part in parts for row in part.pairs for i in row.responses}
    used |= {row.response for part in parts for row in part.ratings}
    assert lake.response_id(10) in used and len(used) > 200
    assert not used & {lake.response_id(n) for n in (4, 9, 12)}
    ratings = {row.id for part in parts for row in part.ratings}
    assert "rating-3" not in ratings and len(ratings) > 150
