"""YAML as a config needs it: plain values, and the line of every key.

Stricter than YAML 1.1 where that protects: a duplicated key is refused, ``1e-3`` is a number, ``no`` and ``2024-01-01``
are texts, a tag (``!!python/...``) is refused, and aliases cannot blow a small file up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Key: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 40

_SCALARS = {
    "tag:yaml.org,2002:null": (r"^(?:~|null|Null|NULL|)$", list("~nN") + [""]),
    "tag:yaml.org,2002:bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "tag:yaml.org,2002:int": (r"^[-+]?[0-9]+$", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


class YamlError(ValueError):
    """A file that is no YAML for a config; the message starts with file and line."""


@dataclass
class Lines:
    """Where each key was written.

    source: how the file is called in messages. line: key -> line number, from 1. given: key -> what else set it: an argument
    of the command line, or a line of the file that this one is based on.
    """

    source: str
    line: dict[Key, int] = field(default_factory=dict)
    given: dict[Key, str] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """``file:line`` of `key`, or of the nearest key around it that has a line; the argument if one set it."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.given:
                return self.given[key[:end]]
            if key[:end] in self.line:
                return f"{self.source}:{self.line[key[:end]]}"
        return self.source

    def written(self, key: Key) -> str | None:
        """Where exactly `key` was set; None where nobody did. What an argument sets, it sets with all that is in it."""
        if key in self.given or key in self.line:
            return self.where(key)
        around = (self.given.get(key[:end]) for end in range(len(key) - 1, 0, -1))
        return next((said for said in around if said is not None and said.startswith("--")), None)


def read_with_base(path: Path, named: Callable[[str], Path | None] = lambda name: None) -> tuple[Any, Lines]:
    """The value of a file that may say ``base: OTHER.yaml``, a file beside it: what it does not say is the other's.

    Sections are merged key by key; a list, or a class with its arguments, is taken whole from the file that is read.

    Args:
        named: the file that a base means which is no file beside.

    Raises:
        YamlError: as `read`, or a base that is based on itself.
    """
    return _read_with_base(path, (), named)


def _read_with_base(path: Path, above: tuple[Path, ...], named_file: Callable[[str], Path | None]) -> tuple[Any, Lines]:
    value, lines = read(path)
    if not isinstance(value, dict) or "base" not in value:
        return value, lines
    named = value.pop("base")
    where = lines.where(("base",))
    if not isinstance(named, str):
        raise YamlError(f"{where}: base is {named!r}; fix: the path of a config, from this one's folder")
    other = path.parent / named
    if not other.is_file():
        other = named_file(named) or other
    if other.resolve() in (*(p.resolve() for p in above), path.resolve()):
        raise YamlError(f"{where}: {named} is based on this file; fix: take one of the two `base` out")
    if not other.exists():
        raise YamlError(
            f"{where}: base {named!r} is not there; fix: a path from {path.parent or '.'}, or a shipped one, as pretrain/small"
        )
    under, beneath = _read_with_base(other, (*above, path), named_file)
    if not isinstance(under, dict):
        return value, lines
    merged = _merged(under, value)
    for key in (*beneath.line, *beneath.given):
        if key not in lines.line and not _taken_whole(value, key):
            lines.given[key] = beneath.where(key)
    return merged, lines


def above(path: Path, root: Path, named: Callable[[str], Path | None] = lambda name: None) -> dict[str, Any] | None:
    """What a file, and those that it is based on, say in the place of what `root` says; None where it is not based on that.

    Args:
        root: a file at the ground of it; itself says nothing in its own place.
        named: as for `read_with_base`.

    Raises:
        YamlError: as `read`.
    """
    seen, over = [path.resolve()], dict[str, Any]()
    while seen[-1] != root.resolve():
        value = read(path)[0]
        if not isinstance(value, dict) or not isinstance(base := value.pop("base", None), str):
            return None
        over = _merged(value, over)
        beside = path.parent / base
        path = beside if beside.is_file() else named(base) or beside
        if path.resolve() in seen:
            return None
        seen.append(path.resolve())
    return over


def _taken_whole(over: Any, key: Key) -> bool:
    """Whether `key` lies in what `over` does not share with its base: a list, or a class with its arguments."""
    for part in key:
        if not isinstance(over, dict) or "class_path" in over:
            return True
        if part not in over:
            return False
        over = over[part]
    return False


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    if "class_path" in over:
        return over
    out = {**under, **over}
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            out[key] = _merged(under[key], value)
    return out


def scalar(text: str) -> Any:
    """The value of a text as it would be read from a file: ``"1e-3"`` -> 0.001, ``"[1, 2]"`` -> [1, 2].

    Raises:
        YamlError: no YAML.
    """
    return _parse(text, Lines("--set"))


def read(path: Path) -> tuple[Any, Lines]:
    """The plain value of a file, and the lines of its keys.

    Raises:
        YamlError: unreadable, no YAML, a duplicated key, a tag, or too large.
    """
    lines = Lines(str(path))
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise YamlError(f"{path}: {size} bytes, a config has at most {MAX_BYTES}; fix: is this the right file?")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise YamlError(f"{path}: no such config file; fix: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"{path}: cannot be read ({type(error).__name__}); fix: it must be a UTF-8 text") from None
    return _parse(text, lines), lines


def _parse(text: str, lines: Lines) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line, reason = error.problem_mark.line + 1 if error.problem_mark else 1, error.problem or error.context
        raise YamlError(f"{lines.source}:{line}: no YAML: {reason}; fix: check indentation and quotes") from None
    except RecursionError:
        raise YamlError(f"{lines.source}: nested too deeply; fix: a config has at most {MAX_DEPTH} levels") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise YamlError(f"{lines.source}: no YAML: {reason}; fix: remove special characters") from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return None
    return _Plain(lines).value(node, ())


class _Plain:
    """Turns YAML's nodes into plain values and notes their lines."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.count = 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        self.lines.line.setdefault(key, line)
        self.count += 1
        if self.count > MAX_NODES or len(key) > MAX_DEPTH:
            raise self._error(line, f"more than {MAX_NODES} values or {MAX_DEPTH} levels; fix: use no aliases")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(child, (*key, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        raise self._error(line, f"tag {node.tag!r} is refused; fix: a config holds plain values only")

    def _error(self, line: int, message: str) -> YamlError:
        return YamlError(f"{self.lines.source}:{line}: {message}")

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name_node, child in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                raise self._error(line, "a key must be a plain name; fix: put it in quotes")
            name = name_node.value
            if name in out:
                first = self.lines.line[(*key, name)]
                raise self._error(line, f"key {name!r} is given twice, first in line {first}; fix: remove one")
            self.lines.line[(*key, name)] = line
            out[name] = self.value(child, (*key, name))
        return out

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "str":
            return node.value
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() == "true"
        if kind == "int" and len(node.value) <= 20:
            return int(node.value)
        if kind == "float":
            return float(re.sub(r"\.(inf|nan)$", r"\1", node.value.lower()))
        raise self._error(line, f"tag {node.tag!r} is refused; fix: a config holds plain values only")
