"""Quick frozen dataclasses behave as those of ``dataclasses``."""

import copy
import dataclasses
import pickle

import pytest

from segcal_cli.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Quick:
    """Two numbers, and what neither compares nor shows."""

    a: int
    b: list[int] = dataclasses.field(default_factory=list)
    c: str = dataclasses.field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError("negative")


@dataclass(frozen=True, slots=True)
class Wider(Quick):
    """One number more."""

    d: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """Equal to itself alone."""

    a: int


def standard(name, bases=(), **options):
    fields = [
        ("a", int),
        ("b", list[int], dataclasses.field(default_factory=list)),
        ("c", str, dataclasses.field(default="", compare=False, repr=False)),
    ]
    return dataclasses.make_dataclass(name, fields, bases=bases, frozen=True, slots=True, **options)


def test_shows_itself_like_a_standard_one():
    assert repr(Quick(1, [2], "x")) == repr(standard("Quick")(1, [2], "x")) == "Quick(a=1, b=[2])"


def test_compares_what_is_compared_and_only_with_its_own_class():
    assert Quick(1, [2], "x") == Quick(1, [2], "y")
    assert Quick(1) != Quick(2)
    assert Quick(1) != Wider(1)
    assert Quick(1) != (1, [])
    assert Wider(1, d=1.0) != Wider(1)
    assert Same(1) != Same(1)


def test_hashes_what_is_compared():
    assert hash(Wider(1, (), "x")) == hash(Wider(1, (), "y")) != hash(Wider(2, (), "x"))
    assert hash(Wider(1, (), "x")) == hash((1, (), 0.5))
    with pytest.raises(TypeError):
        hash(Quick(1, []))


@pytest.mark.parametrize("made", [Quick(1), Wider(1), Same(1)], ids=["quick", "wider", "same"])
def test_nothing_is_assigned_or_deleted(made):
    with pytest.raises(dataclasses.FrozenInstanceError, match="'a'"):
        made.a = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="'a'"):
        del made.a
    with pytest.raises(AttributeError):
        made.other = 2
    assert made.a == 1


def test_has_slots_alone():
    assert not hasattr(Wider(1), "__dict__")
    assert Wider.__slots__ == ("d",)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "deep", "pickle"]
)
def test_survives_copies_and_pickling(copied):
    made = copied(Wider(1, [2], "x", 3.0))
    assert dataclasses.asdict(made) == {"a": 1, "b": [2], "c": "x", "d": 3.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.d = 4.0


def test_is_a_dataclass_for_the_functions_of_dataclasses():
    made = dataclasses.replace(Wider(1, d=2.0), a=3)
    assert (made.a, made.d) == (3, 2.0)
    assert [one.name for one in dataclasses.fields(made)] == ["a", "b", "c", "d"]
    assert Quick(1).b is not Quick(1).b
    with pytest.raises(ValueError, match="negative"):
        dataclasses.replace(made, a=-1)


def test_own_methods_stay():
    @dataclass(frozen=True, slots=True)
    class Named:
        """A name."""

        name: str

        def __repr__(self) -> str:
            return self.name

        def __eq__(self, other: object) -> bool:
            return True

    assert repr(Named("x")) == "x"
    assert Named("x") == Named("y")
