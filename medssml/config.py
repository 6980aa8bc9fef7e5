"""Config is the constructor: class names and constructor arguments, and nothing else.

`describe` turns an object into a node ``{"class_path": "ViT", "init_args": {...}}``, `build` turns the node back into
an object. Names resolve inside medssml, and to those of MONAI's classes that `medssml.monai_names` lists; a class from
elsewhere needs its package named in `plugins`, so a config that somebody mails around can run no code of its own.
`load_config` reads a file, checks every key and value against the constructors that it names, and fills in their defaults.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from medssml import yaml_lines
from medssml.monai_names import ALLOWED
from medssml.schema import ConfigError, Fitter, is_monai, nearest, plain, typed
from medssml.shipped_configs import shipped
from medssml.yaml_lines import Key, Lines, YamlError

__all__ = ["ConfigError", "Configured", "LeftOut", "build", "describe", "load_config", "resolve"]

#: Where a short class name may live.
PACKAGES = (
    "medssml.encoders",
    "medssml.fusion",
    "medssml.transforms",
    "medssml.objectives",
    "medssml.transfer",
    "medssml.model",
    "medssml.spaces",
    "medssml.decoders",
    "medssml.obstacles",
)

Node = dict[str, Any]
T = TypeVar("T")


class LeftOut(ValueError):
    """A part that has nothing to do where some modalities are absent: what it needs, in words."""


class Configured:
    """Mixin of everything that a config can name: an instance remembers the arguments that it was built with."""

    _arguments: dict[str, Any]

    #: Constructor arguments that are other parts of the program and no part of a config.
    _handed_in: tuple[str, ...] = ()

    @classmethod
    def restricted_to(cls, arguments: Node, left: Collection[str]) -> Node:
        """The constructor arguments of a config where studies have no modality but those of `left`.

        The class says what of it names modalities, and what it cannot do without. By default nothing does.

        Raises:
            LeftOut: without the others there is nothing for it to do; the message says what it needs.
        """
        return arguments

    @classmethod
    def completed(cls, arguments: Node) -> Node:
        """The constructor arguments of a config with what of its parts follows from the other arguments.

        So that a config states each fact once. By default nothing follows; what is stated stays as it is.
        """
        return arguments

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def remember(self: Configured, *args: Any, **kwargs: Any) -> None:
            # Only the outermost constructor knows what the user asked for. `object.__setattr__` because
            # torch.nn.Module refuses attributes before its own constructor has run.
            if "_arguments" not in self.__dict__:
                bound = signature.bind(self, *args, **kwargs).arguments
                object.__setattr__(self, "_arguments", dict(list(bound.items())[1:]))
            original(self, *args, **kwargs)

        cls.__init__ = remember  # type: ignore[method-assign, assignment]

    def described(self) -> Any:
        """The node that `build` makes it of."""
        arguments = {k: describe(v) for k, v in self._arguments.items() if k not in self._handed_in}
        return {"class_path": _class_path(type(self)), "init_args": arguments}


def describe(value: Any) -> Any:
    """The node of `value`: what `build` needs to make it again. Plain numbers, texts, lists and dicts stay themselves.

    Raises:
        TypeError: `value` holds something that no config can name.
    """
    if isinstance(value, Configured):
        return value.described()
    if "_node" in getattr(value, "__dict__", {}):
        return value._node
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    fix = "derive its class from Configured, or make it by medssml.config.build of a node"
    raise TypeError(f"a {type(value).__name__} cannot be written to a config; fix: {fix}")


def _class_path(cls: type) -> str:
    return cls.__name__ if cls.__module__.startswith("medssml.") else f"{cls.__module__}.{cls.__qualname__}"


def public_classes() -> dict[str, str]:
    """Short name -> package, for every class that a config may name."""
    names: dict[str, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        names.update({name: package for name in getattr(module, "__all__", ()) if name[:1].isupper()})
    return names


def resolve(class_path: str, plugins: Collection[str] = ()) -> type:
    """The class that `class_path` names.

    Raises:
        KeyError: no such class in medssml, or the package was not allowed with `plugins`.
    """
    package, _, name = class_path.rpartition(".")
    if not package or package.split(".")[0] == "medssml":
        known = public_classes()
        if name not in known:
            hint = f"{nearest(name, known)} (a class of your own needs --plugin PACKAGE)"
            raise KeyError(f"no class {class_path!r} in medssml{hint}")
        return getattr(importlib.import_module(known[name]), name)
    if not any(package == plugin or package.startswith(plugin + ".") for plugin in plugins):
        if package.split(".")[0] == "monai":
            return _of_monai(package, name)
        raise KeyError(f"class {class_path!r} is not part of medssml; fix: allow its package with --plugin {package}")
    try:
        return getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise KeyError(f"class {class_path!r} cannot be imported: {error}") from error


def _of_monai(package: str, name: str) -> type:
    """A class of MONAI that a config may name without a plugin."""
    allowed = ALLOWED.get(package, frozenset())
    if name not in allowed:
        known = allowed or [f"{home}.NAME" for home in ALLOWED]
        why = "only classes that map arrays to arrays, and networks, may stand in a config"
        raise KeyError(f"class '{package}.{name}' of MONAI: {why}{nearest(name, known)}")
    return getattr(importlib.import_module(package), name)  # type: ignore[no-any-return]


def build(
    node: Any, expected: type | None = None, *, plugins: Collection[str] = (), at: str = "", **handed_in: Any
) -> Any:
    """The object that `node` describes; nested nodes are built first.

    Args:
        node: ``{"class_path": ..., "init_args": {...}}``; other values are returned as they are.
        expected: the class that the result must be an instance of.
        plugins: packages outside medssml that class names may come from.
        at: the key of `node` in its config, for messages.
        handed_in: further constructor arguments of the outermost object, parts that are no config.

    Raises:
        KeyError: unknown class. TypeError: wrong class or wrong argument, with the nearest right name. ConfigError: values
            that the constructor refuses, with the key and the class. LeftOut: a part that this model leaves nothing to do.
    """
    inside = f"{at}." if at else ""
    if isinstance(node, Mapping) and "class_path" in node:
        cls = resolve(str(node["class_path"]), plugins)
        if expected is not None and not issubclass(cls, expected):
            raise TypeError(f"class_path {node['class_path']!r} is no {expected.__name__}")
        given = dict(node.get("init_args") or {})
        given = cls.completed(given) if issubclass(cls, Configured) else given
        arguments = {k: build(v, plugins=plugins, at=f"{inside}{k}") for k, v in given.items()}
        check_arguments(cls, arguments)
        _fetches_nothing(cls, arguments)
        built = _constructed(cls, {**handed_in, **arguments}, at)
        if not isinstance(built, Configured) and hasattr(built, "__dict__"):
            # A class of the user's own need not know of medssml; `describe` finds here what it was built from.
            built.__dict__["_node"] = {"class_path": str(node["class_path"]), "init_args": describe(arguments)}
        return built
    if isinstance(node, Mapping):
        return {k: build(v, plugins=plugins, at=f"{inside}{k}") for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return [build(v, plugins=plugins, at=f"{inside}{i}") for i, v in enumerate(node)]
    return node


def _constructed(cls: type, arguments: Mapping[str, Any], at: str) -> Any:
    try:
        return cls(**arguments)
    except (ConfigError, LeftOut):
        raise
    except Exception as error:
        # What a constructor of ours raises besides is a fault of ours; MONAI's refuse values in many ways.
        if not isinstance(error, ValueError) and not is_monai(cls):
            raise
        reason = str(error.args[0] if error.args else error)
        fix = "" if "fix:" in reason else "; fix: change one of these values"
        raise ConfigError(f"{f'key {at!r}, ' if at else ''}{cls.__name__}: {reason}{fix}") from error


def _fetches_nothing(cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuses a network of MONAI that would fetch weights."""
    parameters = inspect.signature(cls).parameters if is_monai(cls) else {}
    if "pretrained" in parameters and arguments.get("pretrained", parameters["pretrained"].default):
        raise ConfigError(f"{cls.__name__} would fetch weights from the network; fix: pretrained: false")


def check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuses a constructor argument that `cls` does not have.

    Raises:
        TypeError: with the nearest right name.
    """
    parameters = inspect.signature(cls).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not open_ended:
            raise TypeError(f"{cls.__name__} has no argument {name!r}{nearest(name, parameters)}")


def load_config(
    path: Path | str | None, schema: type[T], overrides: Sequence[str] = (), plugins: Collection[str] = ()
) -> T:
    """The config as an object: what the file says, what the command line changed, and the default of everything else.

    Args and errors as of `resolved_config`.
    """
    return typed(schema, resolved_config(path, schema, overrides, plugins)[0])


def resolved_config(
    path: Path | str | None, schema: type, overrides: Sequence[str] = (), plugins: Collection[str] = ()
) -> tuple[dict[str, Any], Lines]:
    """The resolved config as plain values, and where each of its keys was written.

    Args:
        path: a YAML file, which may say ``base: OTHER.yaml``, a file beside it or a shipped config such as
            ``pretrain/cohort``, for what it does not say; None for the defaults alone.
        schema: a dataclass whose fields are the config's keys. A field's type may be a dataclass (a section), a class (a node
            with class_path and init_args; `medssml.schema.Builds` where the field's own type is to be right), a plain type, or a
            container of these.
        overrides: ``"optim.lr=1e-3"``; the value is read as YAML. A list is indexed by number
            (``objectives.0.weight=2``), and ``init_args`` may be left out.
        plugins: packages outside medssml that class names may come from.

    Raises:
        ConfigError: a key or value that is wrong, with file, line, key and the nearest right name.
    """
    try:
        values, lines = (None, Lines("defaults")) if path is None else yaml_lines.read_with_base(Path(path), shipped)
    except YamlError as error:
        raise ConfigError(str(error)) from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        received = type(values).__name__
        raise ConfigError(f"{lines.source}:1: expected keys and values, received a {received}; fix: write `key: value`")
    for override in overrides:
        section = override.partition("=")[0].split(".")[0]
        if section not in values and (default := default_section(schema, section)) is not None:
            values[section] = default
        _override(values, override, lines)
    return Fitter(lines, functools.partial(resolve, plugins=plugins)).fit(values, schema, ()), lines


def default_section(schema: type, name: str) -> dict[str, Any] | None:
    """What a section is where the file does not have it, so that one key of it can be set without losing the others."""
    for field in dataclasses.fields(schema) if dataclasses.is_dataclass(schema) else ():
        if field.name == name and field.default_factory is not dataclasses.MISSING:
            default = plain(field.default_factory())
            return default if isinstance(default, dict) else None
    return None


def _override(values: dict[str, Any], override: str, lines: Lines) -> None:
    """Sets ``a.b=c`` in `values` and notes in `lines` that the command line did."""
    where = f"--set {override}"
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{where}: expected key=value; fix: for example --set optim.lr=1e-3")
    try:
        value = yaml_lines.scalar(text)
    except YamlError as error:
        raise ConfigError(f"{where}: {error}") from None
    parent: Any = values
    key: Key = ()
    *path, last = name.split(".")
    for part in [*path, None]:
        if isinstance(parent, dict) and "class_path" in parent and (part or last) not in ("class_path", "init_args"):
            parent, key = parent.setdefault("init_args", {}), (*key, "init_args")
        if part is None:
            break
        index = _index(parent, part, where)
        key = (*key, index)
        if isinstance(parent, dict) and parent.get(part) is None:
            parent[part] = {}
        parent = parent[index]
    index = _index(parent, last, where)
    parent[index] = value
    lines.given[(*key, index)] = where


def _index(parent: Any, part: str, where: str) -> str | int:
    """`part` as an index of `parent`: a name of a mapping, a number of a list."""
    if isinstance(parent, dict):
        return part
    if not isinstance(parent, list):
        raise ConfigError(f"{where}: {part!r} lies below a plain value; fix: leave it out")
    if not part.isdigit() or int(part) >= len(parent):
        fix = f"a number from 0 to {len(parent) - 1}" if parent else "the list is empty"
        raise ConfigError(f"{where}: {part!r} is no place in a list of {len(parent)}; fix: {fix}")
    return int(part)
