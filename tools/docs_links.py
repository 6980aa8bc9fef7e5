"""Hooks of `mkdocs build` (mkdocs.yml): links that leave docs/, and a site that fetches nothing when it is read.

The pages of docs/ are read in the repository too, where `../configs/smoke/simclr.yaml` is a link like any other. A site
holds docs/ alone; so each such file is shown on a page of its own, below `source/`, and the link leads there.
A page that would load a script, a style, a font or an image from elsewhere fails the build.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//[^"'\s>]+|<link[^>]*rel=["']?(?:stylesheet|preload|preconnect)[^>]*href=["']?(?:https?:)?//[^"'\s>]+"""
)
LANGUAGES = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".cff": "yaml", "": "make"}


def page_of(path: str) -> str:
    """The page that shows a file of the repository: `docs/check.md` -> `check.md`, `LICENSE` -> `source/LICENSE.md`."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def origin_of(page: str) -> str:
    """The file of the repository that a page shows: the inverse of `page_of`."""
    if not page.startswith("source/"):
        return f"docs/{page}"
    path = page.removeprefix("source/")
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def target_of(link: str, origin: str) -> str | None:
    """The file of the repository that a relative link of another leads to; None where there is none."""
    if "://" in link:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return path if not path.startswith("..") and (ROOT / path).is_file() else None


def shown(path: str) -> str:
    """The Markdown that shows a file."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(PurePosixPath(path).suffix, "text")
    return f"# {PurePosixPath(path).name}\n\n`{path}`\n\n````{language}\n{text}````\n"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of linked files, and of files that those link to."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    waiting += re.findall(r"source/\S+?\.md", str(config["nav"]))
    while waiting:
        page = waiting.pop()
        origin = origin_of(page)
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=shown(origin)))
        if not origin.endswith(".md"):
            continue
        linked = (target_of(link, origin) for _, link, _ in LINK.findall((ROOT / origin).read_text("utf-8")))
        waiting += [p for t in linked if t and files.get_file_from_path(p := page_of(t)) is None]
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links out of docs/ to the pages that show their targets."""
    here = page.file.src_uri
    origin = origin_of(here)

    def led(match: re.Match[str]) -> str:
        target = target_of(match.group(2), origin)
        if target is None or (origin.startswith("docs/") and target.startswith("docs/")):
            return match.group(0)
        link = os.path.relpath(page_of(target), posixpath.dirname(here) or ".")
        return f"{match.group(1)}{link}{match.group(3)}"

    return LINK.sub(led, markdown) if origin.endswith(".md") else markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The page as it is.

    Raises:
        PluginError: reading it would fetch something from elsewhere.
    """
    found = LOADED.search(output)
    if found:
        raise PluginError(
            f"{page.file.src_uri} loads {found.group(0)!r} from elsewhere; fix: keep the file in docs/assets"
        )
    return output
