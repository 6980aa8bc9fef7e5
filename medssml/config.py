"""Config is the constructor: class names and constructor arguments, and nothing else.

`describe` turns an object into a node ``{"class_path": "ViT", "init_args": {...}}``, `build` turns the node back into an
object. Names resolve inside medssml; a class from elsewhere needs its package named in `plugins`, so a config that
somebody mails around can run no code of its own.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

#: Where a short class name may live.
PACKAGES = ("medssml.encoders", "medssml.fusion", "medssml.transforms", "medssml.objectives", "medssml.model")

Node = dict[str, Any]


class Configured:
    """Mixin of everything that a config can name: an instance remembers the arguments that it was built with."""

    _arguments: dict[str, Any]

    #: Constructor arguments that are other parts of the program and no part of a config.
    _handed_in: tuple[str, ...] = ()

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
                object.__setattr__(self, "_arguments", {k: v for k, v in list(bound.items())[1:]})
            original(self, *args, **kwargs)

        cls.__init__ = remember  # type: ignore[method-assign]


def describe(value: Any) -> Any:
    """The node of `value`: what `build` needs to make it again. Plain numbers, texts, lists and dicts stay themselves.

    Raises:
        TypeError: `value` holds something that no config can name.
    """
    if isinstance(value, Configured):
        arguments = {k: describe(v) for k, v in value._arguments.items() if k not in value._handed_in}
        return {"class_path": _class_path(type(value)), "init_args": arguments}
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
    raise TypeError(f"a {type(value).__name__} cannot be written to a config; derive its class from medssml.config.Configured")


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
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise KeyError(f"no class {class_path!r} in medssml{hint} (a class of your own needs --plugin PACKAGE)")
        return getattr(importlib.import_module(known[name]), name)
    if not any(package == plugin or package.startswith(plugin + ".") for plugin in plugins):
        raise KeyError(f"class {class_path!r} is not part of medssml; fix: allow its package with --plugin {package}")
    try:
        return getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise KeyError(f"class {class_path!r} cannot be imported: {error}") from error


def build(node: Any, expected: type | None = None, *, plugins: Collection[str] = (), **handed_in: Any) -> Any:
    """The object that `node` describes; nested nodes are built first.

    Args:
        node: ``{"class_path": ..., "init_args": {...}}``; other values are returned as they are.
        expected: the class that the result must be an instance of.
        plugins: packages outside medssml that class names may come from.
        handed_in: further constructor arguments of the outermost object, parts that are no config.

    Raises:
        KeyError: unknown class. TypeError: wrong class or wrong argument, with the nearest right name.
    """
    if isinstance(node, Mapping) and "class_path" in node:
        cls = resolve(str(node["class_path"]), plugins)
        if expected is not None and not issubclass(cls, expected):
            raise TypeError(f"class_path {node['class_path']!r} is no {expected.__name__}")
        arguments = {k: build(v, plugins=plugins) for k, v in (node.get("init_args") or {}).items()}
        check_arguments(cls, arguments)
        built = cls(**handed_in, **arguments)
        if not isinstance(built, Configured) and hasattr(built, "__dict__"):
            # A class of the user's own need not know of medssml; `describe` finds here what it was built from.
            built.__dict__["_node"] = {"class_path": str(node["class_path"]), "init_args": describe(arguments)}
        return built
    if isinstance(node, Mapping):
        return {k: build(v, plugins=plugins) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return [build(v, plugins=plugins) for v in node]
    return node


def check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuses a constructor argument that `cls` does not have.

    Raises:
        TypeError: with the nearest right name.
    """
    parameters = inspect.signature(cls).parameters
    for name in arguments:
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(parameters)}"
            raise TypeError(f"{cls.__name__} has no argument {name!r}; {hint}")
