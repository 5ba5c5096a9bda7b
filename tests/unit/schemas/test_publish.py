"""The compatibility check must refuse each kind of change that breaks somebody."""

from enum import StrEnum

from schemas.messages import Closed
from schemas.publish import incompatibilities


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Red(StrEnum):
    RED = "red"


class Inner(Closed):
    size: int


class InnerText(Closed):
    size: str


class Before(Closed):
    name: str
    note: str | None = None
    colour: Colour = Colour.RED
    inner: tuple[Inner, ...] = ()


def changes(after: type[Closed]) -> list[str]:
    return incompatibilities(Before.model_json_schema(), after.model_json_schema())


def test_the_same_schema_is_compatible() -> None:
    assert changes(Before) == []


def test_a_new_optional_field_is_compatible() -> None:
    class After(Before):
        more: int = 0

    assert changes(After) == []


def test_a_new_required_field_is_refused() -> None:
    class After(Before):
        more: int

    assert changes(After) == ["more: is required now, and was not"]


def test_a_field_that_becomes_required_is_refused() -> None:
    class After(Before):
        note: str | None

    assert changes(After) == ["note: is required now, and was not"]


def test_a_removed_field_is_refused() -> None:
    class After(Closed):
        note: str | None = None
        colour: Colour = Colour.RED
        inner: tuple[Inner, ...] = ()

    assert changes(After) == ["name: the field is gone"]


def test_a_changed_type_is_refused() -> None:
    class After(Before):
        name: int  # type: ignore[assignment]

    assert changes(After) == ["name: was string, now integer"]


def test_a_null_no_longer_allowed_is_refused() -> None:
    class After(Before):
        note: str = ""  # type: ignore[assignment]

    assert changes(After) == ["note: was null, now string"]


def test_a_withdrawn_enum_value_is_refused() -> None:
    class After(Before):
        colour: Red = Red.RED  # type: ignore[assignment]

    assert changes(After) == ["colour: the values blue are gone"]


def test_a_change_inside_a_list_is_refused() -> None:
    class After(Before):
        inner: tuple[InnerText, ...] = ()  # type: ignore[assignment]

    assert changes(After) == ["inner[].size: was integer, now string"]
