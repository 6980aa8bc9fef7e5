"""The command line: argv -> verb. Imports nothing heavy; a verb imports what it needs when it runs.

The flags of a verb are the arguments of its function (`medssml.verbs.NAME.NAME`); their types, defaults and help come
from its signature and docstring, so that the Python API and the command line cannot drift apart.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import inspect
import keyword
import os
import re
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from medssml.foreign_text import printable
from medssml.overview import VERBS
from medssml.schema import hints_of, nearest, words

#: Arguments whose flag has another name: given several times, one value each.
_REPEATED = {"overrides": "set", "plugins": "plugin", "classes": "classes"}
_REPEATED_HELP = {
    "set": "any key of the config, as KEY.PATH=VALUE; may be given several times",
    "plugin": "a package of yours that the config may name classes from; may be given several times",
}
_COMMON = {
    "verbose": "say more, and show the traceback of an error",
    "quiet": "say nothing but errors",
    "json": "the result as JSON on stdout, everything else on stderr",
}
_QUIET_LIBRARIES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose description keeps its lines, as wide as a page."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=118)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """Several values as "NAME ...", which leaves room for what is said of them."""
        if action.nargs == "+":
            return f"{action.metavar or default_metavar} ..."
        return super()._format_args(action, default_metavar)


class UsageError(ValueError):
    """A command line that cannot be understood."""

    exit_code = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code (see docs/index.md)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted; fix: the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`medssml ... | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "--verbose" in arguments:
            traceback.print_exc()
        code, message = explain(error)
        print(f"error: {printable(message)}", file=sys.stderr)
        if "--json" in arguments and not arguments[0].startswith("-"):
            from medssml.runs import console

            console.show_json({"verb": arguments[0], "exit_code": code, "error": message})
        return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"medssml {importlib.import_module('medssml').__version__}")
        return 0
    name, *flags = arguments
    if name.startswith("-"):
        raise UsageError(f"medssml: the first word must be a verb, received {name!r}; fix: medssml VERB {name} ...")
    if (family := [verb for verb in VERBS if verb.startswith(f"{name} ")]) and flags[:1] in ([], ["-h"], ["--help"]):
        print("\n".join(f"medssml {verb}: {VERBS[verb].does}" for verb in family))
        return 0 if flags else 2
    name, flags = named(arguments)
    if name not in VERBS:
        raise UsageError(f"medssml: unknown verb {name!r}{nearest(name, VERBS)}")
    function = function_of(name)
    values = parse(name, function, flags)
    if values is None:
        return 0
    said = {flag: values[flag] for flag in _COMMON}
    for flag in _COMMON:
        if flag not in inspect.signature(function).parameters:
            del values[flag]
    said["piped"] = bool(values.get("print_config") or values.get("print_slurm"))
    return _call(name, flags, function, values, **said)


def named(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that a command line begins with, one or two words, and what follows it."""
    name, *rest = words
    if rest and any(verb.startswith(f"{name} ") for verb in VERBS):
        return f"{name} {rest[0]}", rest[1:]
    return name, rest


def function_of(verb: str) -> Callable[..., Any]:
    """The function of a verb; one whose name is a word of Python's has an underscore after it: `import_`.

    That of `study NAME` is `medssml.studies.NAME.study_NAME`: it calls other verbs.
    """
    study = verb.removeprefix("study ")
    if study != verb:
        return getattr(importlib.import_module(f"medssml.studies.{study}"), f"study_{study}")  # type: ignore[no-any-return]
    name = f"{verb}_" if keyword.iskeyword(verb) else verb
    return getattr(importlib.import_module(f"medssml.verbs.{name}"), name)  # type: ignore[no-any-return]


def _call(
    name: str,
    flags: Sequence[str],
    function: Callable[..., Any],
    values: dict[str, Any],
    *,
    verbose: bool,
    quiet: bool,
    json: bool,
    piped: bool,
) -> int:
    """Runs the verb's function; what it returns is shown, and says the exit code (`console.result`)."""
    import logging

    from medssml.foreign_text import LogLine
    from medssml.runs import console

    for variable, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(variable, value)
    console.configure(quiet=quiet, json=json, piped=piped, command=(name, *flags))
    stream = sys.stderr if json or piped else sys.stdout
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLine(traceback=verbose))
    least = logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else least)
    logging.getLogger("medssml").setLevel(logging.DEBUG if verbose else least if quiet else logging.INFO)
    if not verbose:
        warnings.simplefilter("ignore")
    if values.get("plugins") and os.getcwd() not in sys.path:
        # A plug-in may lie in the current folder; last, so that it can hide nothing.
        sys.path.append(os.getcwd())
    # The libraries that a verb imports take seconds: somebody who waits sees at once that it was understood.
    console.say(f"medssml {importlib.import_module('medssml').__version__} {name}")
    return console.result(name, function(**values))


def overview() -> str:
    """What ``medssml --help`` shows."""
    width = max(map(len, VERBS))
    lines = [
        "medssml: pretrain, fine-tune and explain models of studies in which any modality may be absent",
        "",
        "examples:",
        *(f"  medssml {VERBS[name].example}" for name in ("demo", "check", "pretrain")),
        "",
        "verbs:",
        *(f"  {name.ljust(width)}  {verb.does}" for name, verb in VERBS.items()),
        "",
        "medssml VERB --help shows the flags of a verb; --verbose, --quiet and --json work with every verb.",
        "exit codes: 0 done, 2 usage or config, 3 data refused, 4 more rows quarantined or lost than the limit,",
        "            5 checkpoint refused, 75 stopped by a signal (run it again), 130 interrupted",
    ]
    return "\n".join(lines)


def parse(name: str, function: Callable[..., Any], flags: Sequence[str]) -> dict[str, Any] | None:
    """The arguments that `flags` give to the verb `name`; None when they only asked for help.

    Raises:
        UsageError: an unknown flag or a value of the wrong type, with the nearest right name.
    """
    parser = parser_of(name, function)
    if "-h" in flags or "--help" in flags:
        # A verb may have more to say, such as what its arguments can be.
        own_help = getattr(sys.modules[function.__module__], "own_help", lambda words: ("", True))
        text, flags_too = own_help([flag for flag in flags if not flag.startswith("-")])
        print("\n".join([*filter(None, [text]), *([parser.format_help().rstrip()] if flags_too else [])]))
        return None
    import jsonargparse

    try:
        parsed = parser.parse_args(list(flags))
    except (jsonargparse.ArgumentError, TypeError) as error:
        _refuse(name, function, parser, str(error))
    # What was not given is left out: the function knows its own defaults.
    values = {key: value for key, value in vars(parsed).items() if value is not None}
    for parameter, value in values.items():
        if isinstance(value, list) and parameter not in _REPEATED:
            values[parameter] = [part for item in value for part in _parts(item)]
    return values


def _parts(item: Any) -> list[Any]:
    """The names that commas separate; what exists as a path is one, whatever commas it has."""
    if not isinstance(item, str) or _exists(item):
        return [item]
    return [part.strip() for part in item.split(",")]


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # longer than a path may be
        return False


def parser_of(name: str, function: Callable[..., Any]) -> Any:
    """The parser of one verb, from its function's signature and docstring."""
    import docstring_parser
    import jsonargparse

    verb = VERBS[name]
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    helps = {parameter.arg_name: parameter.description or "" for parameter in doc.params}
    text = "\n\n".join(filter(None, (doc.short_description, doc.long_description)))
    parser = jsonargparse.ArgumentParser(
        prog=f"medssml {name}",
        usage=f"medssml {' '.join([name, *(p.upper() for p in verb.positional)])} [FLAGS]",
        description=f"Example: medssml {verb.example}\n\n{text or verb.does}",
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    hints = hints_of(function)
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        _add(parser, parameter, hints.get(parameter.name, str), helps.get(parameter.name, ""), verb.positional)
    for flag, text in _COMMON.items():
        if flag not in parameters:
            parser.add_argument(f"--{flag}", action="store_true", help=text)
    return parser


def _add(parser: Any, parameter: inspect.Parameter, hint: Any, text: str, positional: tuple[str, ...]) -> None:
    """One parameter as an argument of the parser."""
    name, required = parameter.name, parameter.default is parameter.empty
    default = None if required else parameter.default
    flag = "--" + _REPEATED.get(name, name).replace("_", "-")
    text = " ".join((text or _REPEATED_HELP.get(flag[2:], "")).split()).replace("%", "%%")
    text = text.replace("; may be given several times", "; repeatable")
    if required and name not in positional:
        text = f"{text} (required)"
    elif default is not None and not isinstance(default, bool) and default not in ("", (), []):
        text = f"{text} (default: {str(default).replace('%', '%%')})"
    if name in positional:
        item = _item(hint)
        shape = {"nargs": "+"} if item is not None else {} if required else {"nargs": "?", "default": default}
        parser.add_argument(name, type=item or hint, help=text, metavar=name.upper(), **shape)
    elif isinstance(default, bool):
        if default:
            parser.add_argument(f"--no-{flag[2:]}", dest=name, action="store_false", help=f"do not: {text}")
        else:
            parser.add_argument(flag, dest=name, action="store_true", help=text)
    else:
        item = _item(hint)
        of = item if item is not None else hint
        shape = {"dest": name, "type": of, "required": required, "help": text, "metavar": _metavar(of, flag)}
        # A flag in the plural takes several words: --tasks normal covid.
        plural = name.endswith("s") and name not in _REPEATED and not positional
        several = {"action": "extend", "nargs": "+"} if plural else {"action": "append"}
        parser.add_argument(flag, **shape, **({"default": default} if item is None else several))


def _metavar(hint: Any, flag: str) -> str | None:
    """What stands for the value in the help: PATH, N, X, NAME; None leaves the choices of a Literal."""
    if flag == "--set":
        return "KEY=VALUE"
    if flag in ("--kind", "--classes"):
        return "TASK=VALUE"
    options = {hint, *typing.get_args(hint)} if typing.get_origin(hint) is not typing.Literal else set()
    known = {Path: "PATH", str: "NAME", int: "N", float: "X"}
    return next((word for kind, word in known.items() if kind in options), None)


def _item(hint: Any) -> Any:
    """The type of one item where `hint` is a list of some kind, else None."""
    for option in (hint, *typing.get_args(hint)):
        origin = typing.get_origin(option)
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return typing.get_args(option)[0]
    return None


def _refuse(name: str, function: Callable[..., Any], parser: Any, message: str) -> NoReturn:
    """Says in one line what jsonargparse says in several."""
    flags = {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--print_shtab"}
    if unknown := re.search(r"nrecognized arguments: (.*)", message):
        found = unknown.group(1).split()
        given = next((word.split("=")[0] for word in found if word.startswith("-")), found[0])
        if given.startswith("-"):
            raise UsageError(f"medssml {name}: unknown flag {given!r}{nearest(given, flags)}")
        raise UsageError(
            f"medssml {name}: unexpected {given!r}; fix: a value needs its flag, see medssml {name} --help"
        )
    if key := re.search(r"Parser key \"(\w+)\"", message):
        parameter = key.group(1)
        hint = hints_of(function).get(parameter, str)
        flag = _REPEATED.get(parameter, parameter).replace("_", "-")
        received = re.findall(r"[Gg](?:ot|iven) value: (.*)", message)
        got = f", received {received[-1].strip()!r}" if received else ""
        raise UsageError(f"medssml {name}: --{flag}: expected {words(_item(hint) or hint)}{got}; fix: change the value")
    first = next((line.strip() for line in message.splitlines() if line.strip()), "not understood")
    if "required" in first:
        first = f"missing {first.rpartition(': ')[2]}" if ": " in first else first
        raise UsageError(f"medssml {name}: {first}; fix: for example medssml {VERBS[name].example}")
    raise UsageError(f"medssml {name}: {first}; fix: see medssml {name} --help")


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for an error: what, where, why, and the fix."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code, text
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return 75, f"no space left{_at(error)}; fix: free some and run the same command again, it continues"
        if error.filename is not None:
            return 2, f"{error.filename}: {error.strerror}; fix: check the path and its permissions"
    if isinstance(error, (ValueError, KeyError)):
        return 2, text
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("medssml"):
        return 2, f"package {error.name!r} is not installed; fix: medssml doctor says how to install it"
    kind = type(error).__name__
    return 1, f"{kind}: {text}; fix: this is a fault in medssml, run it again with --verbose and report the traceback"


def _at(error: OSError) -> str:
    return f" for {error.filename}" if error.filename else ""


if __name__ == "__main__":
    sys.exit(main())
