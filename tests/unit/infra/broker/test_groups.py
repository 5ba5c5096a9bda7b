"""One group, step by step, with a hand-made clock. Waiters are names: member a's first request waits as `a1`."""

import json
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from kio.schema.errors import ErrorCode

from infra.broker.group_members import NEVER, subscribed_topics
from infra.broker.group_messages import JoinRequest, JoinResult, Leaving, Protocol, SyncRequest, SyncResult
from infra.broker.groups import Answer, Group, GroupOptions, GroupState

SESSION, REBALANCE, DELAY = 10.0, 60.0, 3.0
OPTIONS = GroupOptions(initial_rebalance_delay=DELAY, max_size=4)


def new_group(options: GroupOptions = OPTIONS) -> Group:
    ids = count(1)
    return Group("g", options, lambda: next(ids))


def subscription(*topics: str, rest: bytes = b"") -> bytes:
    names = b"".join(len(t.encode()).to_bytes(2, "big") + t.encode() for t in topics)
    return b"\0\0" + len(topics).to_bytes(4, "big") + names + rest


def request(client: str = "a", member_id: str = "", **changes: Any) -> JoinRequest:
    values: dict[str, Any] = {
        "group_id": "g",
        "member_id": member_id,
        "client_id": client,
        "protocol_type": "consumer",
        "protocols": (Protocol("range", subscription("t")),),
        "session_timeout": SESSION,
        "rebalance_timeout": REBALANCE,
        "member_id_required": False,
    }
    return JoinRequest(**(values | changes))


def told(answers: list[Answer]) -> dict[object, Any]:
    assert len({waiter for waiter, _ in answers}) == len(answers), "answered twice"
    return {answer.waiter: answer.result for answer in answers}


def errors(answers: list[Answer]) -> dict[object, ErrorCode]:
    return {answer.waiter: answer.result.error for answer in answers}


def sync(member_id: str, generation: int, **assignments: str) -> SyncRequest:
    shares = {key.replace("_", "-"): value.encode() for key, value in assignments.items()}
    return SyncRequest(group_id="g", member_id=member_id, generation=generation, assignments=shares)


def stable(*clients: str, options: GroupOptions = OPTIONS, **changes: Any) -> Group:
    """Members a-1, b-2, ...: joined at 0, stable at 6 in generation 1, each assigned its client's name."""
    group = new_group(options)
    for client in clients:
        instance = {"instance_id": client} if changes.get("static") else {}
        group.join(request(client, **instance), client, 0.0)
    group.tick(DELAY)  # prolonged once if others came
    group.tick(2 * DELAY)
    ids = list(group.members)
    for member_id in reversed(ids):
        group.sync(sync(member_id, 1) if member_id != ids[0] else shares_of(group), member_id, 2 * DELAY)
    assert group.state is GroupState.STABLE
    return group


def shares_of(group: Group) -> SyncRequest:
    shares = {member_id: member_id.partition("-")[0].encode() for member_id in group.members}
    return SyncRequest(group_id="g", member_id=group.leader or "", generation=group.generation, assignments=shares)


# Joining


def test_a_new_dynamic_member_is_told_its_id_first_and_joins_with_it() -> None:
    group = new_group()
    answers = group.join(request(member_id_required=True), "a1", 0.0)
    assert told(answers) == {"a1": JoinResult(error=ErrorCode.member_id_required, member_id="a-1")}
    assert group.join(request(member_id="a-1", member_id_required=True), "a2", 1.0) == []
    joined = told(group.tick(1 + DELAY))["a2"]
    assert (joined.error, joined.generation, joined.leader, joined.protocol) == (ErrorCode.none, 1, "a-1", "range")
    assert [(m.member_id, m.metadata) for m in joined.members] == [("a-1", subscription("t"))]


def test_an_id_that_was_given_out_but_never_used_is_forgotten_after_the_session() -> None:
    group = new_group()
    group.join(request(member_id_required=True), "a1", 0.0)
    assert group.next_deadline() == SESSION
    group.tick(SESSION)
    assert errors(group.join(request(member_id="a-1"), "a2", SESSION)) == {"a2": ErrorCode.unknown_member_id}
    assert group.is_unused


def test_the_initial_delay_ends_when_nobody_new_has_come() -> None:
    group = new_group()
    group.join(request("a"), "a1", 0.0)
    group.join(request("b"), "b1", 2.0)
    assert group.tick(3.0) == []
    assert set(told(group.tick(6.0))) == {"a1", "b1"}


def test_the_initial_delay_is_not_prolonged_beyond_the_rebalance_time_out() -> None:
    group = new_group()
    group.join(request("a", rebalance_timeout=5.0), "a1", 0.0)
    group.join(request("b", rebalance_timeout=5.0), "b1", 1.0)
    assert group.tick(3.0) == []  # b came, and 2 of 5 s are left
    group.join(request("c", rebalance_timeout=5.0), "c1", 4.0)
    assert set(told(group.tick(5.0))) == {"a1", "b1", "c1"}


def test_only_the_leader_learns_of_the_members() -> None:
    group = new_group()
    group.join(request("a"), "a1", 0.0)
    group.join(request("b"), "b1", 0.0)
    group.tick(3.0)
    joined = told(group.tick(6.0))
    assert [m.member_id for m in joined["a1"].members] == ["a-1", "b-2"]
    assert joined["b1"].members == ()
    assert joined["b1"].leader == "a-1"


def test_the_protocol_is_the_one_that_most_prefer_among_those_all_can_follow() -> None:
    group = new_group()
    for client, names in (("a", "xyz"), ("b", "yz"), ("c", "zy")):
        group.join(request(client, protocols=tuple(Protocol(n, b"") for n in names)), client, 0.0)
    group.tick(3.0)
    assert told(group.tick(6.0))["a"].protocol == "y"


def test_a_member_that_shares_no_protocol_or_another_type_is_refused() -> None:
    group = stable("a")
    other = request("b", protocols=(Protocol("sticky", b""),))
    assert errors(group.join(other, "b1", 7.0)) == {"b1": ErrorCode.inconsistent_group_protocol}
    connect = request("b", protocol_type="connect")
    assert errors(group.join(connect, "b2", 7.0)) == {"b2": ErrorCode.inconsistent_group_protocol}
    assert errors(new_group().join(request(protocols=()), "c", 0.0)) == {"c": ErrorCode.inconsistent_group_protocol}
    assert group.state is GroupState.STABLE


def test_a_full_group_takes_no_more_members() -> None:
    group = stable("a", "b", "c", "d")
    assert errors(group.join(request("e"), "e1", 7.0)) == {"e1": ErrorCode.group_max_size_reached}
    assert group.state is GroupState.STABLE


def test_joining_twice_answers_the_first_request_too() -> None:
    group = stable("a", "b")
    assert group.join(request("a", "a-1"), "first", 7.0) == []
    assert errors(group.join(request("a", "a-1"), "second", 8.0)) == {"first": ErrorCode.rebalance_in_progress}


# Rebalancing


def test_members_come_and_go_one_two_three_two() -> None:
    group = stable("a")
    assert group.members["a-1"].assignment == b"a"
    assert group.join(request("b"), "b1", 10.0) == []
    assert group.heartbeat("a-1", None, 1, 11.0) is ErrorCode.rebalance_in_progress
    joined = told(group.join(request("a", "a-1"), "a2", 12.0))
    assert {w: r.generation for w, r in joined.items()} == {"a2": 2, "b1": 2}
    assert group.sync(sync("b-2", 2), "b2", 12.0) == []
    shared = told(group.sync(sync("a-1", 2, a_1="0", b_2="1"), "a3", 12.0))
    assert {w: r.assignment for w, r in shared.items()} == {"a3": b"0", "b2": b"1"}

    group.join(request("c"), "c1", 13.0)
    group.join(request("a", "a-1"), "a4", 13.0)
    assert {r.generation for r in told(group.join(request("b", "b-2"), "b3", 13.0)).values()} == {3}
    shared = told(group.sync(sync("a-1", 3, a_1="0", b_2="1", c_3="2"), "a5", 13.0))
    assert shared["a5"].assignment == b"0"
    assert told(group.sync(sync("c-3", 3), "c2", 13.0))["c2"].assignment == b"2"

    left, _ = group.leave([Leaving(member_id="b-2")], 14.0)
    assert [one.error for one in left] == [ErrorCode.none]
    group.join(request("c", "c-3"), "c3", 14.0)
    assert {r.generation for r in told(group.join(request("a", "a-1"), "a6", 14.0)).values()} == {4}
    assert list(group.members) == ["a-1", "c-3"]


def test_a_crashed_member_is_out_after_its_session_and_the_others_rebalance() -> None:
    group = stable("a", "b")  # heard last at 6
    assert group.heartbeat("a-1", None, 1, 12.0) is ErrorCode.none
    assert group.next_deadline() == 16.0
    group.tick(15.9)
    assert len(group.members) == 2
    group.tick(16.0)
    assert list(group.members) == ["a-1"]
    assert group.heartbeat("a-1", None, 1, 16.5) is ErrorCode.rebalance_in_progress
    assert told(group.join(request("a", "a-1"), "a2", 17.0))["a2"].generation == 2


def test_a_member_that_does_not_rejoin_in_time_is_out_even_if_it_sends_heartbeats() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 10.0)  # the leader's join begins a rebalance
    for second in range(11, 70):
        assert group.heartbeat("b-2", None, 1, float(second)) is ErrorCode.rebalance_in_progress
        assert group.tick(float(second)) == []
    assert set(told(group.tick(70.0))) == {"a2"}
    assert group.heartbeat("b-2", None, 1, 70.0) is ErrorCode.unknown_member_id


def test_while_it_waits_for_the_others_a_member_needs_no_heartbeats() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 10.0)
    group.heartbeat("b-2", None, 1, 15.0)
    assert group.tick(24.0) == []  # a was heard last at 10, but waits
    assert set(group.members) == {"a-1", "b-2"}


def test_when_the_leader_comes_too_late_another_leads() -> None:
    group = stable("a", "b")
    group.join(request("b", "b-2", protocols=(Protocol("range", b"new"),)), "b2", 10.0)
    for second in range(11, 70):
        group.heartbeat("a-1", None, 1, float(second))
    joined = told(group.tick(70.0))["b2"]
    assert joined.leader == "b-2"
    assert [m.member_id for m in joined.members] == ["b-2"]


def test_a_follower_that_missed_the_answer_joins_again_without_a_rebalance() -> None:
    group = stable("a", "b")
    again = told(group.join(request("b", "b-2"), "b2", 7.0))["b2"]
    assert (again.generation, again.members) == (1, ())
    assert told(group.sync(sync("b-2", 1), "b3", 7.0))["b3"].assignment == b"b"
    assert group.state is GroupState.STABLE


def test_a_cooperative_member_with_a_new_subscription_starts_a_second_rebalance() -> None:
    group = stable("a", "b")
    owns = (Protocol("range", subscription("t", rest=b"owns 1")),)
    group.join(request("b", "b-2", protocols=owns), "b2", 7.0)
    assert group.state is GroupState.PREPARING_REBALANCE
    assert group.heartbeat("a-1", None, 1, 7.0) is ErrorCode.rebalance_in_progress
    joined = told(group.join(request("a", "a-1"), "a2", 8.0))
    assert [m.metadata for m in joined["a2"].members] == [subscription("t"), subscription("t", rest=b"owns 1")]


def test_a_join_during_the_leaders_assignment_starts_over_and_answers_parked_syncs() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    assert group.sync(sync("b-2", 2), "b3", 7.0) == []
    assert errors(group.join(request("c"), "c1", 8.0)) == {"b3": ErrorCode.rebalance_in_progress}
    assert errors(group.sync(sync("a-1", 2, a_1="0"), "a3", 8.0)) == {"a3": ErrorCode.rebalance_in_progress}
    group.join(request("a", "a-1"), "a4", 8.0)
    assert {r.generation for r in told(group.join(request("b", "b-2"), "b4", 8.0)).values()} == {3}


def test_a_leader_that_dies_while_it_assigns_is_replaced() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group.sync(sync("b-2", 2), "b3", 8.0)
    assert errors(group.tick(17.0)) == {"b3": ErrorCode.rebalance_in_progress}
    assert told(group.join(request("b", "b-2"), "b4", 17.0))["b4"].leader == "b-2"


def test_who_never_syncs_is_out_after_the_rebalance_time_out() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 10.0)
    group.join(request("b", "b-2"), "b2", 10.0)
    group.sync(shares_of(group), "a3", 10.0)
    for second in range(11, 70):
        group.heartbeat("a-1", None, 2, float(second))
        group.heartbeat("b-2", None, 2, float(second))
        assert group.tick(float(second)) == []
    group.tick(70.0)
    assert list(group.members) == ["a-1"]


def test_a_sync_of_another_generation_or_protocol_is_refused() -> None:
    group = stable("a")
    assert errors(group.sync(sync("a-1", 0), "w", 7.0)) == {"w": ErrorCode.illegal_generation}
    assert errors(group.sync(sync("zed", 1), "w", 7.0)) == {"w": ErrorCode.unknown_member_id}
    named = SyncRequest(group_id="g", member_id="a-1", generation=1, protocol_type="consumer", protocol="sticky")
    assert errors(group.sync(named, "w", 7.0)) == {"w": ErrorCode.inconsistent_group_protocol}


def test_whom_the_leader_forgets_gets_an_empty_assignment() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group.sync(sync("a-1", 2, a_1="all"), "a3", 7.0)
    assert told(group.sync(sync("b-2", 2), "b3", 7.0))["b3"] == SyncResult(
        protocol_type="consumer", protocol="range", assignment=b""
    )


def test_the_session_starts_anew_when_a_join_is_answered() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 10.0)
    group.heartbeat("b-2", None, 1, 15.0)
    assert set(told(group.join(request("b", "b-2"), "b2", 24.0))) == {"a2", "b2"}  # a was heard last at 10
    group.tick(33.9)
    assert set(group.members) == {"a-1", "b-2"}


def test_the_session_starts_anew_when_a_sync_is_answered() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 10.0)
    group.join(request("b", "b-2"), "b2", 10.0)
    group.sync(sync("b-2", 2), "b3", 10.0)
    group.heartbeat("a-1", None, 2, 19.0)
    assert set(told(group.sync(shares_of(group), "a3", 24.0))) == {"a3", "b3"}
    group.tick(33.9)
    assert set(group.members) == {"a-1", "b-2"}


def test_a_rebalance_waits_for_a_member_that_has_just_been_given_its_id() -> None:
    group = stable("a")
    group.join(request("b", member_id_required=True), "b1", 7.0)
    assert group.join(request("a", "a-1"), "a2", 8.0) == []
    assert set(told(group.join(request("b", "b-2"), "b2", 9.0))) == {"a2", "b2"}


def test_the_wait_for_syncs_ends_when_a_new_rebalance_begins() -> None:
    group = stable("a")
    group.join(request("a", "a-1"), "a2", 7.0)  # to be synced by 67
    group.join(request("b"), "b1", 20.0)  # to be joined again by 80
    for second in range(21, 68):
        group.heartbeat("a-1", None, 2, float(second))
    group.tick(67.0)
    assert group.next_deadline() == 77.0  # a's session


# Going


def test_the_last_member_leaves_an_empty_group_of_a_later_generation() -> None:
    group = stable("a")
    group.leave([Leaving(member_id="a-1")], 7.0)
    assert (group.state, group.generation, group.changed) == (GroupState.EMPTY, 2, True)
    assert group.next_deadline() == NEVER


def test_several_leave_at_once_and_each_is_answered() -> None:
    group = stable("a", "b", "c")
    leavings = [Leaving(member_id="a-1"), Leaving(member_id="zed"), Leaving(member_id="b-2"), Leaving(member_id="b-2")]
    left, _ = group.leave(leavings, 7.0)
    unknown = ErrorCode.unknown_member_id
    assert [one.error for one in left] == [ErrorCode.none, unknown, ErrorCode.none, unknown]
    assert list(group.members) == ["c-3"]


def test_who_leaves_while_its_join_is_parked_has_it_answered() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    _, answers = group.leave([Leaving(member_id="a-1")], 8.0)
    assert errors(answers) == {"a2": ErrorCode.unknown_member_id}


def test_who_leaves_while_its_sync_is_parked_has_it_answered() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group.sync(sync("b-2", 2), "b3", 7.0)
    _, answers = group.leave([Leaving(member_id="b-2")], 8.0)
    assert errors(answers) == {"b3": ErrorCode.unknown_member_id}


def test_a_member_whose_connection_breaks_while_its_join_is_parked_dies_by_session_time_out() -> None:
    group = stable("a", "b")
    group.join(request("b", "b-2", protocols=(Protocol("range", b"new"),)), "b2", 7.0)
    group.abandon("b2", 8.0)
    assert group.join(request("a", "a-1"), "a2", 9.0) == []  # b has not joined any more
    assert group.next_deadline() == 18.0
    assert set(told(group.tick(18.0))) == {"a2"}
    assert list(group.members) == ["a-1"]


def test_a_member_whose_connection_breaks_while_its_sync_is_parked_can_come_back() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group.sync(sync("b-2", 2), "b3", 7.0)
    group.abandon("b3", 8.0)
    assert set(told(group.sync(shares_of(group), "a3", 9.0))) == {"a3"}
    assert told(group.sync(sync("b-2", 2), "b4", 9.0))["b4"].assignment == b"b"


def test_time_in_which_the_broker_stood_still_counts_against_nobody() -> None:
    group = stable("a")
    group.postpone(100.0)
    group.tick(100.0)
    assert list(group.members) == ["a-1"]
    assert group.next_deadline() == 116.0


# Static members


def test_a_static_member_comes_back_to_its_assignment_without_a_rebalance() -> None:
    group = stable("a", "b", static=True)
    group.changed = False
    joined = told(group.join(request("b", instance_id="b"), "b2", 8.0))["b2"]
    assert (joined.member_id, joined.generation, joined.leader) == ("b-3", 1, "a-1")
    assert told(group.sync(sync("b-3", 1), "b3", 8.0))["b3"].assignment == b"b"
    assert group.heartbeat("a-1", "a", 1, 8.0) is ErrorCode.none
    assert group.changed


def test_the_old_self_of_a_static_member_is_fenced_everywhere() -> None:
    group = stable("a", "b", static=True)
    group.join(request("b", instance_id="b"), "b2", 8.0)
    fenced = ErrorCode.fenced_instance_id
    assert group.heartbeat("b-2", "b", 1, 8.0) is fenced
    assert group.may_commit("b-2", "b", 1, 8.0) is fenced
    assert errors(group.join(request("b", "b-2", instance_id="b"), "b3", 8.0)) == {"b3": fenced}
    syncing = SyncRequest(group_id="g", member_id="b-2", instance_id="b", generation=1)
    assert errors(group.sync(syncing, "b4", 8.0)) == {"b4": fenced}
    assert group.leave([Leaving(member_id="b-2", instance_id="b")], 8.0)[0][0].error is fenced


def test_a_parked_request_of_the_old_self_is_fenced_too() -> None:
    group = stable("a", "b", static=True)
    group.join(request("a", "a-1", instance_id="a"), "a2", 7.0)
    group.join(request("b", "b-2", instance_id="b"), "b2", 7.0)
    group.sync(SyncRequest(group_id="g", member_id="b-2", instance_id="b", generation=2), "b3", 7.0)
    answers = group.join(request("b", instance_id="b"), "b4", 8.0)
    assert errors(answers) == {"b3": ErrorCode.fenced_instance_id}
    assert group.state is GroupState.PREPARING_REBALANCE  # the leader may be assigning to the old id


def test_a_static_leader_that_is_back_is_told_to_keep_the_assignment() -> None:
    group = stable("a", "b", static=True)
    joined = told(group.join(request("a", instance_id="a"), "a2", 8.0))["a2"]
    assert (joined.skip_assignment, joined.leader, len(joined.members)) == (True, "a-3", 2)
    assert told(group.sync(sync("a-3", 1), "a3", 8.0))["a3"].assignment == b"a"


def test_a_static_leader_that_knows_no_skipping_is_made_believe_that_it_follows() -> None:
    group = stable("a", "b", static=True)
    joined = told(group.join(request("a", instance_id="a", can_skip_assignment=False), "a2", 8.0))["a2"]
    assert (joined.member_id, joined.leader, joined.members, joined.skip_assignment) == ("a-3", "a-1", (), False)


def test_a_static_member_that_wants_other_topics_needs_a_rebalance() -> None:
    group = stable("a", "b", static=True)
    more = (Protocol("range", subscription("t", "u")),)
    assert group.join(request("b", instance_id="b", protocols=more), "b2", 8.0) == []
    assert group.state is GroupState.PREPARING_REBALANCE


def test_a_static_member_that_only_forgot_what_it_owned_needs_none() -> None:
    group = stable("a", "b", static=True)
    again = (Protocol("range", subscription("t", rest=b"owns nothing")),)
    assert set(told(group.join(request("b", instance_id="b", protocols=again), "b2", 8.0))) == {"b2"}


def test_a_static_member_that_stays_away_is_out_after_its_session() -> None:
    group = stable("a", "b", static=True)
    group.heartbeat("a-1", "a", 1, 15.0)
    group.tick(16.0)
    assert list(group.members) == ["a-1"]


def test_a_static_member_is_kept_when_it_misses_a_rebalance_within_its_session() -> None:
    group = stable("a", "b", static=True)
    group.join(request("a", "a-1", instance_id="a", rebalance_timeout=2.0), "a2", 7.0)
    assert group.join(request("b", "b-2", instance_id="b", rebalance_timeout=2.0), "b2", 7.0)
    group.sync(shares_of(group), "a3", 7.0)
    group.join(request("a", "a-1", instance_id="a", rebalance_timeout=2.0), "a4", 8.0)
    joined = told(group.tick(10.0))["a4"]
    assert [m.member_id for m in joined.members] == ["a-1", "b-2"]


def test_an_admin_removes_a_static_member_by_its_name() -> None:
    group = stable("a", "b", static=True)
    left, _ = group.leave([Leaving(instance_id="b"), Leaving(instance_id="zed")], 8.0)
    assert [one.error for one in left] == [ErrorCode.none, ErrorCode.unknown_member_id]
    assert list(group.members) == ["a-1"]


# Commits


def test_commits_are_for_members_of_this_generation() -> None:
    group = stable("a")
    assert group.may_commit("a-1", None, 1, 7.0) is ErrorCode.none
    assert group.may_commit("a-1", None, 0, 7.0) is ErrorCode.illegal_generation
    assert group.may_commit("zed", None, 1, 7.0) is ErrorCode.unknown_member_id
    assert group.may_commit("", None, -1, 7.0) is ErrorCode.unknown_member_id
    assert group.may_commit("a-1", "zed", 1, 7.0) is ErrorCode.unknown_member_id


def test_simple_consumers_commit_into_empty_groups() -> None:
    assert new_group().may_commit("", None, -1, 0.0) is ErrorCode.none


def test_a_zombies_commit_is_refused() -> None:
    group = stable("a", "b")
    group.heartbeat("a-1", None, 1, 12.0)
    group.tick(16.0)
    group.join(request("a", "a-1"), "a2", 16.0)
    assert group.may_commit("b-2", None, 1, 17.0) is ErrorCode.unknown_member_id


def test_members_may_commit_before_they_rejoin_but_not_between_join_and_sync() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    assert group.may_commit("b-2", None, 1, 8.0) is ErrorCode.none
    group.join(request("b", "b-2"), "b2", 9.0)
    assert group.may_commit("b-2", None, 2, 9.0) is ErrorCode.rebalance_in_progress


def test_a_commit_is_a_sign_of_life() -> None:
    group = stable("a")
    group.may_commit("a-1", None, 1, 14.0)
    assert group.next_deadline() == 24.0


# Descriptions and restarts


def test_metadata_is_described_once_the_group_is_stable() -> None:
    group = stable("a")
    described = group.describe()
    assert (described.state, described.protocol_type, described.protocol) == ("Stable", "consumer", "range")
    assert [(m.member_id, m.metadata, m.assignment) for m in described.members] == [("a-1", subscription("t"), b"a")]
    group.join(request("b"), "b1", 7.0)
    assert [m.metadata for m in group.describe().members] == [b"", b""]
    assert group.listed().state == "PreparingRebalance"


def test_live_consumers_read_the_topics_they_are_subscribed_to() -> None:
    group = stable("a")
    assert group.reads("t")
    assert not group.reads("u")
    opaque = new_group()
    opaque.join(request(protocols=(Protocol("range", b"?"),)), "a1", 0.0)
    assert opaque.reads("u")


def test_a_subscription_is_read_up_to_its_topics() -> None:
    assert subscribed_topics(subscription("t", "ü", rest=b"\0\0")) == {"t", "ü"}
    assert subscribed_topics(b"\0\0\0\0\0\1\0\5abc") is None
    assert subscribed_topics(b"") is None


def test_after_a_restart_live_members_go_on_and_dead_ones_time_out() -> None:
    stored = json.loads(json.dumps(stable("a", "b").snapshot()))
    group = Group.restore("g", stored, OPTIONS, 1000.0)
    assert group.heartbeat("a-1", None, 1, 1005.0) is ErrorCode.none
    assert group.may_commit("a-1", None, 1, 1005.0) is ErrorCode.none
    assert told(group.sync(sync("a-1", 1), "w", 1005.0))["w"].assignment == b"a"
    group.tick(1010.0)
    assert list(group.members) == ["a-1"]


def test_a_restart_within_a_rebalance_has_all_join_again_into_a_later_generation() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group = Group.restore("g", json.loads(json.dumps(group.snapshot())), OPTIONS, 1000.0)
    assert group.heartbeat("b-2", None, 2, 1001.0) is ErrorCode.rebalance_in_progress
    group.join(request("a", "a-1"), "a3", 1001.0)
    assert {r.generation for r in told(group.join(request("b", "b-2"), "b3", 1001.0)).values()} == {3}


def test_a_rebalance_after_a_restart_waits_no_longer_than_any_other() -> None:
    group = stable("a", "b")
    group.join(request("a", "a-1"), "a2", 7.0)
    group.join(request("b", "b-2"), "b2", 7.0)
    group = Group.restore("g", json.loads(json.dumps(group.snapshot())), OPTIONS, 1000.0)
    group.join(request("a", "a-1"), "a3", 1001.0)
    for second in range(1001, 1060):
        group.heartbeat("b-2", None, 2, float(second))
    assert set(told(group.tick(1060.0))) == {"a3"}


def test_a_static_member_is_known_by_its_name_after_a_restart() -> None:
    stored = json.loads(json.dumps(stable("a", "b", static=True).snapshot()))
    group = Group.restore("g", stored, OPTIONS, 1000.0)
    assert told(group.join(request("b", instance_id="b"), "b2", 1001.0))["b2"].generation == 1


# Whatever they do


class RandomMembers(RuleBasedStateMachine):
    """Clients that do anything at any time, well-behaved or not, against one group and its restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.group = new_group()
        self.requests = count(1)
        self.open: dict[str, float] = {}
        self.ids: list[str] = [""]
        self.generation = 0

    def asked(self) -> str:
        waiter = f"request {next(self.requests)}"
        self.open[waiter] = self.now
        return waiter

    def take(self, answers: list[Answer]) -> None:
        for waiter, result in answers:
            assert waiter in self.open, "answered twice, or never asked"
            del self.open[str(waiter)]
            if isinstance(result, JoinResult) and result.member_id and result.member_id not in self.ids:
                self.ids.append(result.member_id)
            if isinstance(result, JoinResult) and result.error is ErrorCode.none:
                assert result.generation == self.group.generation
                assert bool(result.members) <= (result.leader == result.member_id)
            if isinstance(result, SyncResult) and result.error is ErrorCode.none:
                assert self.group.state is GroupState.STABLE

    @rule(
        pick=st.integers(0, 12),
        instance=st.sampled_from([None, None, "s", "t"]),
        topics=st.sampled_from(["t", "u"]),
        names=st.sampled_from(["x", "xy", "yx"]),
        required=st.booleans(),
        timeout=st.sampled_from([0.0, 5.0, 30.0]),
    )
    def join(self, pick: int, instance: str | None, topics: str, names: str, required: bool, timeout: float) -> None:
        protocols = tuple(Protocol(name, subscription(topics)) for name in names)
        member_id = self.ids[pick % len(self.ids)]
        known = self.group.members.get(member_id)
        if known is not None and pick % 4:
            instance = known.instance_id
        asked = request(
            "c",
            member_id,
            instance_id=instance,
            protocols=protocols,
            member_id_required=required,
            rebalance_timeout=timeout,
        )
        self.take(self.group.join(asked, self.asked(), self.now))

    @rule(pick=st.integers(0, 12), back=st.sampled_from([0, 0, 0, 1]))
    def sync(self, pick: int, back: int) -> None:
        self.ask_to_sync(self.ids[pick % len(self.ids)], self.group.generation - back)

    def ask_to_sync(self, member_id: str, generation: int) -> None:
        shares = {name: f"{name} in {generation}".encode() for name in self.group.members}
        asked = SyncRequest(group_id="g", member_id=member_id, generation=generation, assignments=shares)
        self.take(self.group.sync(asked, self.asked(), self.now))

    @rule(until=st.sampled_from(["joined", "followers synced", "stable", "stable"]))
    def everyone_goes_on(self, until: str) -> None:
        """Without this a random walk would hardly ever reach a stable group."""
        for member in list(self.group.members.values()):
            again = request("c", member.id, instance_id=member.instance_id, protocols=member.protocols)
            self.take(self.group.join(again, self.asked(), self.now))
        followers = [name for name in self.group.members if name != self.group.leader]
        for member_id in followers if until != "joined" else []:
            self.ask_to_sync(member_id, self.group.generation)
        if until == "stable" and self.group.leader is not None:
            self.ask_to_sync(self.group.leader, self.group.generation)

    @rule(pick=st.integers(0, 12))
    def heartbeat(self, pick: int) -> None:
        self.group.heartbeat(self.ids[pick % len(self.ids)], None, self.group.generation, self.now)

    @rule(pick=st.integers(0, 12), instance=st.sampled_from([None, None, "s"]))
    def leave(self, pick: int, instance: str | None) -> None:
        leaving = Leaving(member_id=self.ids[pick % len(self.ids)], instance_id=instance)
        self.take(self.group.leave([leaving], self.now)[1])

    @rule(pick=st.integers(0, 12))
    def break_connection(self, pick: int) -> None:
        if self.open:
            waiter = list(self.open)[pick % len(self.open)]
            self.group.abandon(waiter, self.now)
            del self.open[waiter]

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.group.next_deadline() <= until:
            self.now = max(self.now, self.group.next_deadline())
            self.take(self.group.tick(self.now))
            assert self.group.next_deadline() > self.now, "a deadline that is never dealt with keeps the timers busy"
        self.now = until

    @rule()
    def restart(self) -> None:
        stored = json.loads(json.dumps(self.group.snapshot()))
        ids = self.group._new_id
        self.group = Group.restore("g", stored, OPTIONS, self.now)
        self.group._new_id = ids
        self.open.clear()

    @invariant()
    def generations_only_grow(self) -> None:
        assert self.group.generation >= self.generation
        self.generation = self.group.generation

    @invariant()
    def in_a_stable_group_every_member_has_what_the_leader_gave_it(self) -> None:
        group = self.group
        if group.state is GroupState.STABLE:
            for member in group.members.values():
                assert member.assignment.endswith(f" in {group.generation}".encode())
                assert member.sync_waiter is None
                assert member.join_waiter is None

    @invariant()
    def whoever_waits_is_known_to_the_group(self) -> None:
        members = self.group.members.values()
        parked = [w for m in members for w in (m.join_waiter, m.sync_waiter) if w is not None]
        assert sorted(map(str, parked)) == sorted(self.open)

    @invariant()
    def the_leader_is_a_member(self) -> None:
        assert (self.group.leader in self.group.members) == bool(self.group.members)
        assert set(self.group._static.values()) == {m.id for m in self.group.members.values() if m.instance_id}

    @invariant()
    def a_group_with_members_always_has_something_to_wait_for(self) -> None:
        assert not self.group.members or self.group.next_deadline() < NEVER

    def teardown(self) -> None:
        """Nobody says a word any more: within the longest time-outs all is answered and the group is empty."""
        self.time_passes(1000.0)
        assert self.open == {}
        assert self.group.state is GroupState.EMPTY


TestRandomMembers = RandomMembers.TestCase
TestRandomMembers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
