"""Registries: one decorator, names checked, the place of a name that is taken."""

import pytest

from fbnetv3.errors import FBNetError, first_line, one_line
from fbnetv3.registry import Registry


def test_registers_and_returns_what_is_decorated():
    registry = Registry("shape")

    @registry.register("square")
    def square():
        return 4

    assert square() == 4
    assert registry.get("square") is square
    assert registry.names() == ["square"]
    assert "square" in registry


def test_declared_names_are_known_before_and_registered_once():
    registry = Registry("shape", declared=("square", "circle"))
    assert "circle" in registry
    registry.register("circle")(one_line)
    registry.register("star")(len)
    assert list(registry) == ["square", "circle", "star"]
    with pytest.raises(FBNetError, match=r"shape 'circle' is already registered in .*errors\.py"):
        registry.register("circle")(first_line)
    with pytest.raises(FBNetError, match="shape 'square' is built in; choose another name"):
        registry.register("square")(print)


def test_a_definition_that_runs_again_replaces_the_earlier_one():
    registry = Registry("shape")

    def define():
        @registry.register("square")
        def square():
            return 4

        return square

    first, second = define(), define()
    assert registry.get("square") is second is not first
    with pytest.raises(FBNetError, match="already registered"):
        registry.register("square")(second)


def test_a_taken_name_names_the_first_place():
    registry = Registry("shape")
    registry.register("square")(test_registers_and_returns_what_is_decorated)
    with pytest.raises(FBNetError, match=r"already registered in .*test_registry.py, line \d+; "):
        registry.register("square")(print)


@pytest.mark.parametrize("name", ["", "two words", "a\n", 3, None])
def test_names_that_are_not_allowed(name):
    with pytest.raises(FBNetError, match=r"shape name .* is not allowed"):
        Registry("shape").register(name)


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (
            ("square", "circle"),
            "square, circle, or a name that a file of --import registers; did you mean square?",
        ),
        (("disc",), "disc, or a name that a file of --import registers"),
        ((), "a name that a file of --import registers"),
    ],
)
def test_an_unknown_name_lists_the_known_ones_and_names_import(names, allowed):
    registry = Registry("shape", declared=names)
    with pytest.raises(FBNetError) as error:
        registry.get("sqare")
    assert str(error.value) == f"shape 'sqare' is unknown; allowed: {allowed}"


def test_the_class_of_errors_can_be_chosen():
    class ShapeError(FBNetError):
        pass

    with pytest.raises(ShapeError):
        Registry("shape", error=ShapeError).get("square")
