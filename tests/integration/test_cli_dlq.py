"""Dead letters from the command line, on a real broker: seen, mended, sent again, dropped."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.cli import dlq
from infra.cli.letter_edit import document
from infra.local.log import read_all
from schemas import tables, topics
from schemas.audit import Audit
from schemas.connection import KafkaConnection
from schemas.envelope import encode
from schemas.errors import BrokerUnavailable, SettingsError
from schemas.tables import DeadLetterRow
from streams.adapters.dead_letters import Letter
from tests.integration.streams_kit import Kit, event, feedback, output, until

FEEDBACK = topics.FEEDBACK.name
LATIN = "grüße".encode("latin-1")


@pytest.fixture
def kit(fresh_broker: str, tmp_path: Path) -> Kit:
    return Kit(fresh_broker, tmp_path / "data")


def call(kit: Kit, *arguments: str, typed: str = "") -> Result:
    place = ("--data", str(kit.data), "--bootstrap-servers", kit.bootstrap)
    return CliRunner().invoke(dlq.app, [*arguments, *place], input=typed)


def letters(kit: Kit) -> dict[str, Letter]:
    rows = kit.rows(tables.DEAD_LETTERS).iter_rows(named=True)
    return {row["reason"]: Letter.of(DeadLetterRow.model_validate(row)) for row in rows}


def fail(kit: Kit, *messages: tuple[bytes | None, list[tuple[str, bytes | None]]]) -> None:
    """Send messages that are no feedback, and have ingest put them away."""
    for value, headers in messages:
        kit.send_raw(FEEDBACK, value, headers)
    ingest = kit.ingest()
    until(lambda: kit.rows(tables.DEAD_LETTERS).height == len(messages), "the dead letters", doing=ingest.step)
    ingest._consumer.close()


def stored(kit: Kit, table: tables.Table, height: int) -> list[dict[str, Any]]:
    ingest = kit.ingest()
    until(lambda: kit.rows(table).height >= height, f"{height} rows in {table.name}", doing=ingest.step)
    ingest._consumer.close()
    return kit.rows(table).to_dicts()


def state(kit: Kit, letter: Letter) -> str:
    found = json.loads(call(kit, "list", "--state", "all", "--json").stdout)
    return next(x["state"] for x in found["letters"] if x["id"] == letter.id)


def acts(kit: Kit) -> list[tuple[str, str]]:
    events = read_all(KafkaConnection(bootstrap_servers=kit.bootstrap), topics.AUDIT, Audit)
    return [(e.data.action, e.data.target) for e in events]


def thumb() -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """A good thumb on the wire."""
    said = event(feedback(output().response_id, "thumbs_up"))
    _, value, headers = encode(said)
    return value, list(headers)


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """An editor that does `code` to the document in `d`; its words need no shell."""
    script = tmp_path / "my editor.py"
    script.write_text(
        "import json, os, pathlib, sys\npath = pathlib.Path(sys.argv[-1])\nd = json.loads(path.read_text())\n"
        f"{code}\npath.write_text(d if isinstance(d, str) else json.dumps(d))\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{sys.executable}' '{script}'")


def test_letters_are_counted_by_topic_and_reason_and_listed_by_what_is_asked(kit: Kit) -> None:
    fail(kit, (b"{broken", thumb()[1]), (b"also [broken", thumb()[1]), (b"\xff", []), (None, []))
    told = json.loads(call(kit, "list", "--json", "--limit", "2").stdout)
    counts = {(c["topic"], c["reason"]): (c["open"], c["retried"], c["dropped"]) for c in told["counts"]}
    assert counts == {
        (FEEDBACK, "malformed_json"): (2, 0, 0),
        (FEEDBACK, "missing_attribute"): (1, 0, 0),
        (FEEDBACK, "empty_value"): (1, 0, 0),
    }
    assert len(told["letters"]) == 2
    empty = json.loads(call(kit, "list", "--json", "--reason", "empty_value", "--since", "1h").stdout)["letters"]
    assert [x["reason"] for x in empty] == ["empty_value"]
    assert json.loads(call(kit, "list", "--json", "--topic", topics.LABELS.name).stdout)["letters"] == []
    shown = call(kit, "list").stdout
    assert "malformed_json" in shown
    assert letters(kit)["empty_value"].id in shown


def test_show_gives_the_bytes_and_headers_as_they_came(kit: Kit) -> None:
    fail(kit, (b"\x1b[31m\xff\x00", [("odd", LATIN), ("odd", None), ("said", b"\x1b[2J")]))
    (letter,) = letters(kit).values()
    assert (letter.value, letter.headers) == (
        b"\x1b[31m\xff\x00", (("odd", LATIN), ("odd", None), ("said", b"\x1b[2J"))
    )  # fmt: skip
    assert call(kit, "show", letter.id[:20], "--raw").stdout_bytes == b"\x1b[31m\xff\x00"
    shown = call(kit, "show", letter.id).stdout
    assert "1b 5b 33 31 6d ff 00" in shown
    assert "gr\\xfc\\xdfe" in shown
    assert "\x1b" not in shown, "what came from outside must not steer a terminal"


def test_what_would_fail_again_is_not_sent_and_said(kit: Kit) -> None:
    fail(kit, (b"{broken", thumb()[1]))
    (letter,) = letters(kit).values()
    done = call(kit, "retry", "--all")
    assert done.exit_code == 1
    assert "0 sent again" in done.stdout
    assert f"{letter.id}: it would fail again: malformed_json" in done.stderr
    assert len(kit.read(FEEDBACK)) == 1
    assert state(kit, letter) == "open"


def test_a_letter_mended_in_the_editor_becomes_one_row_however_often_it_is_sent(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, headers = thumb()
    wrong = json.dumps(json.loads(value) | {"kind": "thumbs_sideways"}).encode()
    fail(kit, (wrong, [*headers, ("odd", "grüße".encode())]))
    (letter,) = letters(kit).values()
    editor(
        tmp_path,
        monkeypatch,
        f'd["payload"]["kind"] = "thumbs_up"; open({str(tmp_path / "seen")!r}, "w").write(str(path))',
    )
    assert call(kit, "retry", letter.id, "--edit").exit_code == 0
    assert state(kit, letter) == "retried", "by the log, before ingest has stored the act"
    assert call(kit, "retry", letter.id, "--edit", "--again").exit_code == 0
    rows = stored(kit, tables.FEEDBACK, 1)
    stored(kit, tables.AUDIT, 2)
    assert [(r["kind"], r["event_id"]) for r in rows] == [("thumbs_up", dict(headers)["ce_id"].decode())]  # pyright: ignore[reportOptionalMemberAccess]
    assert state(kit, letter) == "retried", "by the table"
    assert acts(kit) == [("replay", letter.id), ("replay", letter.id)]
    sent = kit.read(FEEDBACK)[1].headers() or []
    assert ("odd", "grüße".encode()) in sent
    assert ("thumbwheel_retry_of", letter.id.encode()) in sent
    left = Path((tmp_path / "seen").read_text())
    assert not left.exists()
    assert not left.parent.exists()


def test_a_letter_without_an_event_id_gets_its_own_as_one_so_that_a_retry_counts_once(kit: Kit) -> None:
    value, headers = thumb()
    fail(kit, (value, [(n, v) for n, v in headers if n != "ce_id"]))
    (letter,) = letters(kit).values()
    assert call(kit, "retry", "--reason", "missing_attribute").exit_code == 0
    assert call(kit, "retry", letter.id, "--again").exit_code == 0
    assert [r["event_id"] for r in stored(kit, tables.FEEDBACK, 1)] == [letter.id]
    assert "nothing" in call(kit, "drop", "--reason", "missing_attribute", "--yes").stdout, "it is not open any more"


def test_an_editor_that_changes_nothing_or_leaves_nonsense_sends_nothing(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(kit, (b"{broken", thumb()[1]))
    (letter,) = letters(kit).values()
    monkeypatch.setenv("VISUAL", "true --wait")
    same = call(kit, "retry", letter.id, "--edit")
    assert (same.exit_code, "nothing was changed; it would fail again: malformed_json" in same.stderr) == (1, True)
    editor(tmp_path, monkeypatch, 'd = "no json"')
    assert "not JSON" in call(kit, "retry", letter.id, "--edit").stderr
    monkeypatch.setenv("EDITOR", "false")
    assert isinstance(call(kit, "retry", letter.id, "--edit").exception, SettingsError)
    assert len(kit.read(FEEDBACK)) == 1


def test_a_second_look_in_the_editor_begins_where_the_first_one_ended(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, headers = thumb()
    fail(kit, (b"{broken", headers))
    (letter,) = letters(kit).values()
    good = repr(json.loads(value))
    editor(
        tmp_path,
        monkeypatch,
        f'd["payload" if "_seen" in d else "payload_text"] = {good} if "_seen" in d else "[worse"\n'
        'd.pop("payload_text") if "_seen" in d else d.update(_seen=1)',
    )
    monkeypatch.setattr(dlq, "_interactive", lambda: True)
    done = call(kit, "retry", letter.id, "--edit", typed="y\n")
    assert done.exit_code == 0, done.output
    assert len(stored(kit, tables.FEEDBACK, 1)) == 1


def test_the_file_to_edit_is_the_users_alone(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(kit, (b"{broken", thumb()[1]))
    modes = tmp_path / "modes"
    editor(
        tmp_path,
        monkeypatch,
        f"open({str(modes)!r}, 'w').write(f'{{path.stat().st_mode}} {{path.parent.stat().st_mode}}')",
    )
    call(kit, "retry", "--all", "--edit")
    file, folder = map(int, modes.read_text().split())
    assert (stat.S_IMODE(file), stat.S_IMODE(folder)) == (0o600, 0o700)


def test_feedback_that_waits_for_its_answer_is_passed_over_and_said(kit: Kit) -> None:
    late = output()
    kit.send(event(feedback(late.response_id, "thumbs_up")))
    stored(kit, tables.FEEDBACK, 1)
    refine = kit.refine(orphan_after_seconds=1e-6)
    until(lambda: kit.rows(tables.DEAD_LETTERS).height == 1, "the orphan", doing=refine.round)
    done = call(kit, "retry", "--all")
    assert (done.exit_code, "0 sent again" in done.stdout) == (0, True)
    assert "1 letters were passed over" in done.stderr
    assert len(kit.read(FEEDBACK)) == 1


def test_a_drop_asks_first_and_is_an_act_of_somebody(kit: Kit) -> None:
    fail(kit, (None, []), (b"{broken", thumb()[1]))
    letter = letters(kit)["empty_value"]
    assert call(kit, "drop", "--reason", "empty_value", typed="n\n").exit_code == 1
    assert state(kit, letter) == "open"
    assert call(kit, "drop", "--reason", "empty_value", typed="y\n").exit_code == 0
    assert state(kit, letter) == "dropped"
    stored(kit, tables.AUDIT, 1)
    assert acts(kit) == [("dead_letter_drop", letter.id)]
    assert state(kit, letters(kit)["malformed_json"]) == "open"


def test_mistakes_are_said(kit: Kit, tmp_path: Path) -> None:
    assert isinstance(call(kit, "retry", "--all").exception, SettingsError), "no table"
    assert "no dead letters" in call(kit, "list").stdout
    assert not (kit.data / "lake").exists(), "looking makes nothing"
    fail(kit, (None, []), (b"{broken", thumb()[1]))
    assert isinstance(call(kit, "show", "dead-").exception, SettingsError)
    assert isinstance(call(kit, "show", "dead-0000nothing").exception, SettingsError)
    assert call(kit, "retry").exit_code == 2
    assert call(kit, "retry", "--all", "--reason", "x").exit_code == 2
    assert call(kit, "list", "--state", "lost").exit_code == 2
    assert isinstance(call(kit, "list", "--since", "yesterday").exception, SettingsError)


@pytest.mark.usefixtures("impatient")
def test_without_a_broker_nothing_is_called_sent(kit: Kit) -> None:
    fail(kit, (None, []))
    gone = ["--data", str(kit.data), "--bootstrap-servers", "127.0.0.1:1"]
    assert isinstance(CliRunner().invoke(dlq.app, ["retry", "--all", *gone]).exception, BrokerUnavailable)
    assert CliRunner().invoke(dlq.app, ["list", *gone]).exit_code == 0, "the tables are enough to look"


def test_the_document_shows_a_payload_as_json_text_or_base64() -> None:
    def shown(value: bytes | None) -> dict[str, Any]:
        letter = Letter(FEEDBACK, 0, 1, "x", "y", None, value, (("ce_id", b"i"),))
        return {n: v for n, v in json.loads(document(letter)).items() if n.startswith("payload")}

    assert shown(b'{"a": "\\ud800"}') == {"payload": {"a": "\ud800"}}
    assert shown("{grüße".encode()) == {"payload_text": "{grüße"}
    assert shown(LATIN) == {"payload_base64": "Z3L832U="}
    assert shown(None) == {"payload_text": None}
