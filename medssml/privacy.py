"""Ids as keyed hashes: what is written can be handed on, and only who holds the key can map it back.

A code is BLAKE2b (RFC 7693) of an id under 32 random bytes. Without the key nobody can try out patient numbers, as they
could against a plain hash. The key is one file of this user, outside every run folder; it is made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Names the key's file where it is not in the user's configuration folder.
KEY_VARIABLE = "MEDSSML_PRIVACY_KEY"
_KEY_BYTES = 32
#: Endings that say a format and nothing else; any other could be part of a name.
_FORMATS = re.compile(
    r"\.(nii|nii\.gz|dcm|ima|png|jpe?g|edf|bdf|gdf|fif|fif\.gz|set|vhdr|txt|rtf|xml|html?|json|ndjson|hl7|csv)$", re.I
)


class PrivacyError(ValueError):
    """A key that cannot be used or made."""

    exit_code = 2


@dataclass(frozen=True)
class Pseudonyms:
    """What an id is called in whatever is written.

    Args:
        key: 32 bytes; None = ids stay as they are, as for simulated studies.
    """

    key: bytes | None = field(default=None, repr=False)

    @property
    def strict(self) -> bool:
        """Whether ids are hashed."""
        return self.key is not None

    def study(self, study_id: str) -> str:
        """ "s" and 16 hex digits, or the id itself where there is no key."""
        return self._code("study", study_id)

    def subject(self, subject_id: str) -> str:
        """ "p" and 16 hex digits, or the id itself where there is no key."""
        return self._code("person", subject_id)

    def file(self, name: str) -> str:
        """ "f", 16 hex digits and the ending of the format, or the name itself where there is no key."""
        ending = _FORMATS.search(name)
        return self._code("file", name) + (ending.group().lower() if ending and self.strict else "") if name else ""

    def facts(self) -> dict[str, Any]:
        """What a result file says about its ids: whether they are hashed, and a mark of the key (not the key)."""
        mark = {} if self.key is None else {"key": self._code("key", "mark")[1:9]}
        return {"strict": self.strict, **mark}

    def _code(self, kind: str, text: str) -> str:
        if self.key is None:
            return text
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self.key, person=kind.encode())
        # A letter first: no spreadsheet takes a code for a number.
        return kind[0] + digest.hexdigest()


@dataclass(frozen=True)
class Coded(Pseudonyms):
    """Ids that are codes already, made where the studies were prepared: they stay as they are.

    Args:
        mark: of the key that they were made with.
    """

    mark: str = ""

    @property
    def strict(self) -> bool:
        """True: they are codes."""
        return True

    def file(self, name: str) -> str:
        """The name, which is that of a shard."""
        return name

    def facts(self) -> dict[str, Any]:
        """As of the key that the codes were made with."""
        return {"strict": True, "key": self.mark}


def short_code(study_id: str) -> str:
    """What a log or a page calls a study: the beginning of its code, or of a hash of what is still an id."""
    if re.fullmatch(r"s[0-9a-f]{16}", study_id):
        return study_id[:9]
    return hashlib.blake2b(study_id.encode(), digest_size=4).hexdigest()


def pseudonyms(
    strict: bool = True, out: str | Path | None = None, environ: Mapping[str, str] = os.environ
) -> Pseudonyms:
    """The codes of this user; the key is made where there is none yet.

    Args:
        strict: False = ids stay as they are.
        out: the folder of results that the key must not lie in.
        environ: where `MEDSSML_PRIVACY_KEY` and the user's configuration folder are looked up.

    Raises:
        PrivacyError: the key lies in `out`, others may read it, it is damaged, or it cannot be made.
    """
    if not strict:
        return Pseudonyms()
    path = key_file(environ)
    if out is not None and path.resolve().is_relative_to(Path(out).resolve()):
        raise PrivacyError(
            f"the key {path} lies in the folder of results {out}; fix: set {KEY_VARIABLE} to a file elsewhere"
        )
    if not path.exists():
        _make(path)
    return Pseudonyms(_read(path))


def key_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the key of this user is: what `MEDSSML_PRIVACY_KEY` says, else `medssml/privacy.key` in ~/.config."""
    if environ.get(KEY_VARIABLE):
        return Path(environ[KEY_VARIABLE]).expanduser()
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "medssml" / "privacy.key"


def _make(path: Path) -> None:
    """Writes a new key, whole or not at all, for this user's eyes only; another process may do the same at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_hex(_KEY_BYTES) + "\n")
        # Unlike a rename, a link does not replace the key that another process has just made.
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    except OSError as error:
        fix = f"fix: set {KEY_VARIABLE} to a file that can be written, or turn privacy.strict off (--plain-ids)"
        raise PrivacyError(f"the key {path} cannot be made ({error.strerror}); {fix}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _read(path: Path) -> bytes:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise PrivacyError(f"the key {path} cannot be read ({error.strerror}); fix: chmod 600 {path}") from error
    except ValueError as error:
        raise PrivacyError(f"the key {path} is damaged: expected 64 hex digits; fix: restore it from a copy") from error
    if len(key) != _KEY_BYTES:
        raise PrivacyError(
            f"the key {path} is damaged: {len(text)} characters, expected 64; fix: restore it from a copy"
        )
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise PrivacyError(f"others may read the key {path}; fix: chmod 600 {path}")
    return key
