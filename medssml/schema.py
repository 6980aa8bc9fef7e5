"""Does a plain value fit a type, and if not, where does it say so: what stands between a config file and a constructor.

A type is what a constructor's annotation says: ``int``, ``float | None``, ``tuple[int, int, int]``, ``Literal[...]``, a
dataclass (a section of the config), any other class (a node with class_path and init_args), or containers of these.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from medssml.yaml_lines import Key, Lines

T = TypeVar("T")

_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "null", Path: "a path"}


class ConfigError(ValueError):
    """A config that cannot be used; the message says where, why, and the fix."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class Builds:
    """Mark of a dataclass's field that holds a node, the plain values of an object that is built later:
    ``Annotated[dict[str, Any], Builds(Encoder)]``.

    handed_in: arguments that the config need not state, of the object and of those in it: whoever builds it knows them.
    """

    cls: type
    handed_in: tuple[str, ...] = ()


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; fix: remove it, known here: {', '.join(sorted(known)) or 'nothing'}"


def plain(value: Any) -> Any:
    """A default value as a config holds it.

    Raises:
        TypeError: it cannot be written to a config.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be written to a config")


def typed(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass `cls` of plain values that fit it: its sections are dataclasses as well, nodes stay as they are.

    `plain` of it are the values again. Raises what its ``__post_init__`` does.
    """
    hints = hints_of(cls)
    return cls(**{name: _typed(value, hints.get(name, Any)) for name, value in values.items()})


def _typed(value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    section = next((option for option in options if dataclasses.is_dataclass(option)), None)
    if isinstance(section, type) and isinstance(value, Mapping):
        return typed(section, value)
    is_tuple = isinstance(value, list) and any(typing.get_origin(option) is tuple for option in options)
    return tuple(value) if is_tuple else value


def is_monai(cls: type) -> bool:
    """Whether a class is MONAI's own. Its annotations are wider than a config can hold, and its defaults are its own: of
    such a class only the names of the arguments are checked here, the values by its constructor."""
    return cls.__module__.split(".")[0] == "monai"


def hints_of(target: Any) -> dict[str, Any]:
    """Annotations of a dataclass, a class's constructor or a function; empty where they cannot be resolved."""
    try:
        if isinstance(target, type) and not dataclasses.is_dataclass(target):
            return typing.get_type_hints(target.__init__, include_extras=True)  # type: ignore[misc]
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _meant(hint: Any) -> Any:
    """What an annotated type is to a config: the class of its mark, else the type without its marks."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint
    mark = _mark(hint)
    return hint.__origin__ if mark is None else mark.cls


def _mark(hint: Any) -> Builds | None:
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Builds)), None)


def words(hint: Any) -> str:
    """A type as a message says it."""
    hint = _meant(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(words(a) for a in arguments)
    if origin in _DICTS or hint in _DICTS:
        return "a mapping"
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(words(a) for a in arguments)}"
    if origin in _LISTS or hint in _LISTS:
        return f"a list of {words(arguments[0])}" if arguments else "a list"
    if dataclasses.is_dataclass(hint):
        return f"the keys of {getattr(hint, '__name__', hint)}"
    if isinstance(hint, type):
        return f"class_path and init_args of a {hint.__name__}"
    return "a value"


class Fitter:
    """Checks values against types and fills in defaults.

    Args:
        lines: where each key was written, for the messages.
        resolve: class_path -> class; raises KeyError.
        handed_in: arguments that no node need state; see `Builds`.
    """

    def __init__(self, lines: Lines, resolve: Callable[[str], type], handed_in: tuple[str, ...] = ()) -> None:
        self.lines = lines
        self.resolve = resolve
        self.handed_in = handed_in

    def fit(self, value: Any, hint: Any, key: Key) -> Any:
        """`value` as a plain value that fits `hint`, defaults included.

        Raises:
            ConfigError: with file, line and key.
        """
        if (mark := _mark(hint)) is not None and mark.handed_in:
            return Fitter(self.lines, self.resolve, mark.handed_in).fit(value, mark.cls, key)
        hint = _meant(hint)
        origin = typing.get_origin(hint)
        if origin in (Union, types.UnionType):
            return self._union(value, hint, key)
        if origin is Literal:
            return self._literal(value, hint, key)
        if origin in _DICTS or hint in _DICTS:
            return self._mapping(value, hint, key)
        if origin in _LISTS or hint in _LISTS:
            return self._list(value, hint, key)
        if hint in _WORDS:
            return self._scalar(value, hint, key)
        if isinstance(hint, type) and hint not in (object, Any):
            return self._section(value, hint, key) if dataclasses.is_dataclass(hint) else self._node(value, hint, key)
        return self._anything(value, key)

    def section(
        self, value: Mapping[str, Any], schema: Mapping[str, Any], defaults: Mapping[str, Any], name: str, key: Key
    ) -> dict[str, Any]:
        """A mapping whose keys are those of `schema`: unknown ones are refused, absent ones filled from `defaults`."""
        for given in value:
            if given not in schema:
                raise self.error((*key, given), f"unknown key {given!r} in {name}{nearest(given, schema)}")
        out = {}
        for field, hint in schema.items():
            if field in value:
                out[field] = self.fit(value[field], hint, (*key, field))
            elif field in defaults:
                out[field] = defaults[field]
            else:
                raise self.error(key, f"key {field!r} of {name} is missing; fix: give it {words(hint)}")
        return out

    def error(self, key: Key, message: str) -> ConfigError:
        """The error that says `message` about `key`."""
        return ConfigError(f"{self.lines.where(key)}: {message}")

    def _wrong(self, value: Any, hint: Any, key: Key) -> ConfigError:
        name = ".".join(map(str, key))
        return self.error(key, f"key {name!r}: expected {words(hint)}, received {value!r}; fix: change the value")

    def _scalar(self, value: Any, hint: Any, key: Key) -> Any:
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        accepted = str if hint is Path else hint
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is int):
            raise self._wrong(value, hint, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, f"key {'.'.join(map(str, key))!r} is {value}; fix: give a finite number")
        return value

    def _literal(self, value: Any, hint: Any, key: Key) -> Any:
        allowed = typing.get_args(hint)
        if isinstance(value, int) and not isinstance(value, bool) and str(value) in allowed and value not in allowed:
            return str(value)  # a word that looks like a number: `precision: 32`
        if not any(value == option and type(value) is type(option) for option in allowed):
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
            hinted = f"; did you mean {near[0]!r}?" if near else ""
            name = ".".join(map(str, key))
            raise self.error(key, f"key {name!r}: expected {words(hint)}, received {value!r}{hinted}")
        return value

    def _union(self, value: Any, hint: Any, key: Key) -> Any:
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        options = tuple(o for o in options if o is not type(None))
        if len(options) == 1:
            return self.fit(value, options[0], key)
        refused = []
        for option in options:
            try:
                return self.fit(value, option, key)
            except ConfigError as error:
                refused.append(error)
        # A node, a section or a list of nodes has more to say than that it is of the wrong type.
        if isinstance(value, (list, tuple)) and any(isinstance(inner, Mapping) for inner in value):
            lists = [e for o, e in zip(options, refused, strict=True) if (typing.get_origin(o) or o) in _LISTS]
            raise lists[0] if lists else self._wrong(value, hint, key)
        raise refused[0] if isinstance(value, Mapping) else self._wrong(value, hint, key)

    def _mapping(self, value: Any, hint: Any, key: Key) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(value, hint, key)
        arguments = typing.get_args(hint)
        inner = arguments[1] if len(arguments) == 2 else Any
        return {k: self.fit(v, inner, (*key, k)) for k, v in value.items()}

    def _list(self, value: Any, hint: Any, key: Key) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise self._wrong(value, hint, key)
        inner = typing.get_args(hint) or (Any,)
        if typing.get_origin(hint) is tuple and inner[-1] is not Ellipsis:
            if len(inner) != len(value):
                raise self._wrong(value, hint, key)
            return [self.fit(v, t, (*key, i)) for i, (v, t) in enumerate(zip(value, inner, strict=True))]
        return [self.fit(v, inner[0], (*key, i)) for i, v in enumerate(value)]

    def _section(self, value: Any, cls: type, key: Key) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(value, cls, key)
        hints, defaults = hints_of(cls), {}
        fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
        for field in fields:
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = plain(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                defaults[field.name] = plain(field.default_factory())
        schema = {f.name: hints.get(f.name, Any) for f in fields}
        out = self.section(value, schema, defaults, cls.__name__, key)
        self._consistent(cls, out, key)
        return out

    def _consistent(self, cls: type, values: dict[str, Any], key: Key) -> None:
        """Lets a dataclass refuse contradictory values, in its `__post_init__`; nodes in it are not built yet."""
        if not hasattr(cls, "__post_init__"):
            return
        try:
            typed(cls, values)
        except (ValueError, KeyError) as error:
            raise self.error(key, f"{cls.__name__}: {error.args[0] if error.args else error}") from error

    def _node(self, value: Any, expected: type, key: Key) -> dict[str, Any]:
        if not isinstance(value, Mapping) or "class_path" not in value:
            raise self._wrong(value, expected, key)
        for given in value:
            if given not in ("class_path", "init_args"):
                near = nearest(given, ("class_path", "init_args"))
                hint = f"{near} (arguments belong under init_args)"
                raise self.error((*key, given), f"unknown key {given!r} beside class_path{hint}")
        try:
            cls = self.resolve(str(value["class_path"]))
        except KeyError as error:
            raise self.error((*key, "class_path"), str(error.args[0])) from error
        if not issubclass(cls, expected):
            raise self.error((*key, "class_path"), f"{cls.__name__} is no {expected.__name__}; fix: name another class")
        arguments = value.get("init_args") or {}
        if not isinstance(arguments, Mapping):
            raise self._wrong(arguments, dict, (*key, "init_args"))
        # `medssml.config.Configured.completed`: what of its parts follows from the other arguments need not be stated.
        arguments = getattr(cls, "completed", dict)(arguments)
        return {"class_path": value["class_path"], "init_args": self._arguments(cls, arguments, (*key, "init_args"))}

    def _arguments(self, cls: type, value: Mapping[str, Any], key: Key) -> dict[str, Any]:
        foreign = is_monai(cls)
        hints, handed_in = {} if foreign else hints_of(cls), getattr(cls, "_handed_in", ())
        schema, defaults, open_ended = {}, {}, False
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                open_ended = True
            elif name not in handed_in and (name in value or name not in self.handed_in):
                schema[name] = hints.get(name, Any)
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
        if open_ended:
            schema.update({name: Any for name in value if name not in schema})
        out = self.section(value, schema, defaults, cls.__name__, key)
        return {k: plain(v) for k, v in out.items() if k in value or (not foreign and _is_plain(v))}

    def _anything(self, value: Any, key: Key) -> Any:
        if isinstance(value, Mapping):
            if "class_path" in value:
                return self._node(value, object, key)
            return {k: self._anything(v, (*key, k)) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._anything(v, (*key, i)) for i, v in enumerate(value)]
        return value


def _is_plain(value: Any) -> bool:
    try:
        plain(value)
    except TypeError:
        return False
    return True
