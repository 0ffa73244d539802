"""Build each kind of layer once: of eighty equal layers one is built and run, and the others stand in for it.

A layer's constructor sees its index. While it runs, the index is a number that remembers every question it was asked
(``layer_idx % 2 == 0``, ``layer_idx >= 3``). A later layer of the same class, with equal arguments and equal entries in
all lists of the config, for whose index every answer would be the same, would be built the same, so it is not: it
becomes a stand-in that returns what the real layer returned, and counts how often it was asked.

What cannot be told apart this way is noticed, not guessed: a stand-in that is called with other arguments than its
original, or an index whose questions in the forward pass have other answers, raises ``NotInterchangeable``.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

_INDEX_NAMES = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "idx", "i", "layer_i"})


class NotInterchangeable(Exception):
    """Layers that looked the same are not: build and run each of them."""


@dataclass(frozen=True, slots=True)
class _Question:
    ask: Callable[[int], object]
    answer: object

    def same_for(self, index: int) -> bool:
        try:
            return bool(self.ask(index) == self.answer)
        except (ArithmeticError, TypeError, ValueError):
            return False


class _Index(int):
    """A layer's index that records what is asked of it; arithmetic gives another such number."""

    of: Callable[[int], int]
    asked: list[_Question]

    @classmethod
    def made(cls, value: int, of: Callable[[int], int], asked: list[_Question]) -> "_Index":
        index = cls(value)
        index.of, index.asked = of, asked
        return index

    def __hash__(self) -> int:  # a key of a dict or set: only the same number will do
        self.asked.append(_Question(self.of, int.__add__(self, 0)))
        return int.__hash__(self)

    def __bool__(self) -> bool:
        answer = int.__bool__(self)
        self.asked.append(_Question(lambda base: bool(self.of(base)), answer))
        return answer

    def __int__(self) -> int:
        self.asked.append(_Question(self.of, int.__add__(self, 0)))
        return int.__add__(self, 0)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int.__add__(self, 0),)


def _plain(value: object) -> object:
    return int.__add__(value, 0) if isinstance(value, _Index) else value


def _at(value: object, base: int) -> object:
    return value.of(base) if isinstance(value, _Index) else value


def _comparison(name: str) -> Callable[[_Index, object], bool]:
    compare: Callable[[Any, Any], bool] = getattr(operator, name)

    def method(self: _Index, other: object) -> bool:
        if not isinstance(other, int | float):
            return NotImplemented  # type: ignore[no-any-return]  # what python expects of it
        answer = bool(compare(_plain(self), _plain(other)))
        self.asked.append(_Question(lambda base: compare(self.of(base), _at(other, base)), answer))
        return answer

    return method


def _arithmetic(name: str, *, reflected: bool = False) -> Callable[[_Index, object], object]:
    compute: Callable[[Any, Any], Any] = getattr(operator, name)
    if reflected:
        compute = _swapped(compute)

    def method(self: _Index, other: object) -> object:
        if type(other) is not int and not isinstance(other, _Index):
            return NotImplemented if not isinstance(other, float) else compute(_plain(self), other)
        value = compute(_plain(self), _plain(other))
        if type(value) is not int:
            return value  # a factor, not a size
        return _Index.made(value, lambda base: compute(self.of(base), _at(other, base)), self.asked)

    return method


def _exact(name: str) -> Callable[..., object]:
    """Anything else that python does with a number: only the same number will do."""
    compute: Callable[..., Any] = getattr(int, name)

    def method(self: _Index, *others: object) -> object:
        self.asked.append(_Question(self.of, int.__add__(self, 0)))
        return compute(int.__add__(self, 0), *(_plain(other) for other in others))

    return method


def _swapped(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: compute(right, left)


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Index, f"__{_name}__", _comparison(_name))
for _name in (
    *("and", "or", "xor", "lshift", "rshift", "rand", "ror", "rxor", "rlshift", "rrshift", "pow", "rpow"),
    *("divmod", "rdivmod", "neg", "abs", "invert", "float", "round", "str", "format"),
):
    setattr(_Index, f"__{_name}__", _exact(f"__{_name}__"))
for _name in ("add", "sub", "mul", "mod", "floordiv"):
    setattr(_Index, f"__{_name}__", _arithmetic(_name))
    setattr(_Index, f"__r{_name}__", _arithmetic(_name, reflected=True))


@dataclass(slots=True, kw_only=True)
class _Original:
    """A layer that is built and run, for itself and for its stand-ins."""

    layer: Any
    index: int | None
    asked: list[_Question]
    calls: int = 0
    signature: object = None
    output: Any = None

    def stands_for(self, index: int | None) -> bool:
        return index is None or all(question.same_for(index) for question in self.asked)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One real call of one layer; ``number`` counts the calls of that layer."""

    layer: int  # identity of the layer
    number: int


def is_layer(module: torch.nn.Module) -> bool:
    """Whether a module is one of the layers that transformers stacks."""
    return isinstance(module, GradientCheckpointingLayer)


@dataclass(slots=True, kw_only=True)
class RepeatedLayers:
    """Which call is being run for real, and how often each was stood in for."""

    current: list[LayerCall] = field(default_factory=list)
    repeats: dict[LayerCall, int] = field(default_factory=dict)  # calls in all, the real one included

    def clear(self) -> None:
        """Forget the calls of the last forward pass."""
        self.current.clear()
        self.repeats.clear()


@contextmanager
def layers_built_once(model_class: type, config: Any) -> Iterator[RepeatedLayers]:
    """Within this context constructing ``model_class(config)`` builds each kind of layer once."""
    repeated = RepeatedLayers()
    builder = _Builder(repeated, _columns(config))
    originals = {kind: kind.__init__ for kind in _layer_classes(model_class)}
    try:
        for kind, construct in originals.items():
            kind.__init__ = builder.constructor(construct)
        yield repeated
    finally:
        for kind, construct in originals.items():
            kind.__init__ = construct


def _layer_classes(model_class: type) -> list[Any]:
    module = sys.modules[model_class.__module__]
    return [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, GradientCheckpointingLayer) and "__init__" in vars(item)
    ]


def _columns(config: Any) -> list[list[Any]]:
    """Every list of the config that may have one entry per layer, computed ones included.

    Reading a list at an index is the one question that an index cannot hear.
    """
    parts = [config, config.get_text_config(decoder=True)]
    values = [value for part in parts for value in (*vars(part).values(), *_computed(part))]
    return [list(value) for value in values if isinstance(value, list | tuple)]


def _computed(config: Any) -> Iterator[Any]:
    for kind in type(config).__mro__:
        for name, item in vars(kind).items():
            if isinstance(item, property):
                with suppress(Exception):  # it needs what this config lacks, and then no layer reads it either
                    yield getattr(config, name)


class _Builder:
    def __init__(self, repeated: RepeatedLayers, columns: list[list[Any]]) -> None:
        self._repeated = repeated
        self._columns = columns
        self._originals: dict[object, list[_Original]] = {}
        self._inside = False

    def constructor(self, construct: Callable[..., None]) -> Callable[..., None]:
        """The constructor of a layer class that builds only what has not been built yet."""
        signature = inspect.signature(construct)

        def build(layer: Any, *args: Any, **kwargs: Any) -> None:
            if self._inside:
                construct(layer, *args, **kwargs)
                return
            bound = signature.bind(layer, *args, **kwargs)
            name = next((name for name in bound.arguments if name in _INDEX_NAMES), None)
            given = bound.arguments[name] if name is not None else None
            index = given if type(given) is int else None
            key = (type(layer), index is None, self._entries(index), _arguments_key(bound.arguments, name))
            for original in self._originals.get(key, []):
                if original.stands_for(index):
                    self._stand_in(layer, original, name, index)
                    return
            asked: list[_Question] = []
            if name is not None and index is not None:
                bound.arguments[name] = _Index.made(index, lambda base: base, asked)
            self._build(construct, bound)
            original = _Original(layer=layer, index=index, asked=asked)
            self._originals.setdefault(key, []).append(original)
            layer.forward = self._watched(original, layer.forward)

        return build

    def _build(self, construct: Callable[..., None], bound: inspect.BoundArguments) -> None:
        self._inside = True
        try:
            construct(*bound.args, **bound.kwargs)
        finally:
            self._inside = False

    def _entries(self, index: int | None) -> str:
        if index is None:
            return ""
        return repr([column[index] if -len(column) <= index < len(column) else None for column in self._columns])

    def _watched(self, original: _Original, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of a real layer, which remembers what it was given and what it gave."""

        def run(*args: Any, **kwargs: Any) -> Any:
            call = LayerCall(id(original), original.calls)
            original.calls += 1
            self._repeated.current.append(call)
            self._repeated.repeats[call] = 1
            try:
                output = forward(*args, **kwargs)
            finally:
                self._repeated.current.pop()
            original.signature, original.output = _call_key(args, kwargs), output
            return output

        return run

    def _stand_in(self, layer: Any, original: _Original, name: str | None, index: int | None) -> None:
        torch.nn.Module.__init__(layer)
        internal = set(vars(layer))
        for key, value in vars(original.layer).items():
            if key not in internal and key != "forward":
                vars(layer)[key] = index if key == name and index is not None else value

        def run(*args: Any, **kwargs: Any) -> Any:
            if original.calls == 0 or _call_key(args, kwargs) != original.signature or not original.stands_for(index):
                raise NotInterchangeable(type(layer).__name__)
            self._repeated.repeats[LayerCall(id(original), original.calls - 1)] += 1
            return original.output

        layer.forward = run


def _arguments_key(arguments: dict[str, Any], index_name: str | None) -> str:
    return repr(
        [
            (name, value if isinstance(value, bool | int | float | str | None) else id(value))
            for position, (name, value) in enumerate(arguments.items())
            if position > 0 and name != index_name
        ]
    )


def _call_key(*values: object) -> object:
    """Shapes, dtypes and plain values of what a layer was called with, however nested."""
    return tuple(_value_key(value) for value in values)


def _value_key(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype
    if isinstance(value, list | tuple):
        return _call_key(*value)
    if isinstance(value, dict):
        return tuple((name, _value_key(item)) for name, item in value.items())
    return value if isinstance(value, bool | int | float | str | None) else type(value)
