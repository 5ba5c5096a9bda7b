"""The files of the keys: whole or not at all, for the owner alone, and the last good ones where a new one is broken."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from serving.adapters import keys, secret_files
from serving.adapters.keys import PseudonymKey
from serving.adapters.secret_files import WatchedFile
from serving.core.access import ApiKeys, Scope
from serving.core.tokens import TokenKeys

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def api_keys(*names: str) -> ApiKeys:
    made = (
        keys.new_api_key(name=name, scopes=(Scope.CHAT,), tenant=None, rate=None, expires=None, now=NOW)[0]
        for name in names
    )
    return ApiKeys(keys=tuple(made))


def names(watched: WatchedFile[ApiKeys]) -> list[str]:
    return [key.name for key in watched.content().keys]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "keys.json"
    before = os.umask(0)
    try:
        secret_files.replace(file, api_keys("a"))
        secret_files.create_once(file.with_name("once.json"), api_keys("a"))
    finally:
        os.umask(before)
    assert [mode(path) for path in (file.parent, file, file.with_name("once.json"))] == [0o700, 0o600, 0o600]
    assert {path.name for path in file.parent.iterdir()} == {"keys.json", "once.json"}  # no drafts stay behind


def test_of_many_who_make_the_file_at_once_one_does_and_all_read_the_same(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "token_keys.json"
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda _: keys.watched_token_keys(file, ours=True).content(), range(32)))
    assert len({key.secret for found in read for key in found.keys}) == 1


def test_a_file_that_is_not_ours_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"THUMBWHEEL_TOKEN_KEYS names .* does not exist"):
        keys.watched_token_keys(tmp_path / "gone.json", ours=False)
    with pytest.raises(SettingsError, match=r"THUMBWHEEL_PSEUDONYM_KEY names .* does not exist"):
        keys.pseudonym_key(tmp_path / "gone.json", ours=False)
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_the_pseudonyms_stays(tmp_path: Path) -> None:
    first = keys.pseudonym_key(tmp_path / "key.json", ours=True)
    assert keys.pseudonym_key(tmp_path / "key.json", ours=True) == first
    assert len(first.key) == 43  # 32 bytes in base64


def test_a_change_is_seen_at_the_next_look_which_is_a_second_later(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    watched = WatchedFile(file, ApiKeys, if_missing=ApiKeys(), clock=clock)
    assert names(watched) == []
    secret_files.replace(file, api_keys("a"))
    clock.now = 0.9
    assert names(watched) == []
    clock.now = 1.0
    assert names(watched) == ["a"]
    secret_files.replace(file, api_keys("a", "b"))
    clock.now = 2.0
    assert names(watched) == ["a", "b"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"keys": [{"id": "x"}]}', b"\xff\xfe", None])
def test_a_broken_file_keeps_the_last_good_one_and_is_a_problem_until_it_is_mended(
    tmp_path: Path, damage: bytes | None
) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    secret_files.replace(file, api_keys("a"))
    watched = WatchedFile(file, ApiKeys, if_missing=ApiKeys(), clock=clock)
    file.unlink() if damage is None else file.write_bytes(damage)
    clock.now = 1.0
    assert names(watched) == ["a"]
    assert "stays in force" in str(watched.problem)
    secret_files.replace(file, api_keys("b"))
    clock.now = 2.0
    assert names(watched) == ["b"]
    assert watched.problem is None


def test_a_file_that_is_broken_from_the_start_is_said_in_a_line_that_repeats_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"secret": "hunter2"}')
    with pytest.raises(SettingsError) as caught:
        WatchedFile(file, PseudonymKey)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "api_keys.json"
    file.parent.mkdir()

    def add(name: str) -> None:
        keys.change_api_keys(file, lambda held: ApiKeys(keys=(*held.keys, *api_keys(name).keys)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, map(str, range(40))))
    assert sorted(int(key.name) for key in keys.read_api_keys(file).keys) == list(range(40))


def test_a_rotation_adds_a_key_and_keeps_the_old_ones(tmp_path: Path) -> None:
    file = tmp_path / "token_keys.json"
    first, _ = keys.rotate_token_keys(file, now=NOW, retire_after=None)
    second, retired = keys.rotate_token_keys(file, now=NOW + timedelta(days=1), retire_after=None)
    assert retired == ()
    assert [key.kid for key in secret_files.read(file, TokenKeys).keys] == [first, second]
    third, retired = keys.rotate_token_keys(file, now=NOW + timedelta(days=2), retire_after=timedelta(0))
    assert retired == (first, second)
    assert [key.kid for key in secret_files.read(file, TokenKeys).keys] == [third]
