"""doctor: it tells the truth about this machine, and a fix for whatever is wanting."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from medssml.runs import memory
from medssml.verbs import doctor as module
from medssml.verbs.doctor import doctor


def findings(folder: Path, topic: str) -> dict[str, dict[str, Any]]:
    return {f["what"]: f for f in doctor(folder=folder)["findings"] if f["topic"] == topic}


def test_a_machine_that_runs_these_tests_is_ready(tmp_path: Path) -> None:
    result = doctor(folder=tmp_path)
    assert result["exit_code"] == 0
    assert {"python", "package", "codec", "compute", "memory", "disk", "sqlite"} <= {
        f["topic"] for f in result["findings"]
    }
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_wanting_has_a_fix(tmp_path: Path) -> None:
    for finding in doctor(folder=tmp_path)["findings"]:
        assert finding["state"] in ("ok", "note", "missing")
        assert (finding["state"] == "ok") == (finding["fix"] == ""), finding


def test_versions_are_the_installed_ones(tmp_path: Path) -> None:
    packages = findings(tmp_path, "package")
    assert packages["monai"]["value"] == importlib.metadata.version("monai")
    assert "pytest" not in packages


def test_a_missing_and_an_old_package_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module._version
    versions = {"monai": None, "pydicom": "2.4.0"}
    monkeypatch.setattr(module, "_version", lambda name: versions[name] if name in versions else original(name))
    result = doctor(folder=tmp_path)
    packages = {f["what"]: f for f in result["findings"] if f["topic"] == "package"}
    assert result["exit_code"] == 2
    assert packages["monai"]["state"] == "missing" and "pip install 'monai>=1.6.1'" in packages["monai"]["fix"]
    assert packages["pydicom"]["state"] == "missing" and "2.4.0" in packages["pydicom"]["value"]


def test_codecs_agree_with_the_decoders(tmp_path: Path) -> None:
    from pydicom.pixels import get_decoder

    for name, finding in findings(tmp_path, "codec").items():
        assert (finding["state"] == "ok") == get_decoder(module.CODECS[name]).is_available
        if finding["state"] != "ok":
            assert "python-gdcm" in finding["fix"] and "pylibjpeg-openjpeg" in finding["fix"]


def test_the_folder_need_not_exist_and_is_not_made(tmp_path: Path) -> None:
    assert findings(tmp_path / "a" / "b", "disk")["writable"]["state"] == "ok"
    assert not (tmp_path / "a").exists()


def test_a_container_limit_counts_as_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cgroup_limit", lambda: 2 * module.GIB)
    ram = findings(tmp_path, "memory")["RAM"]
    assert ram["value"] == "2.0 GiB" and ram["state"] == "note" and "6 GiB" in ram["fix"]


def test_a_command_that_is_not_on_the_path_is_told_how_to_come_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings(tmp_path, "python")["medssml on the PATH"]
    assert found["state"] == "note" and found["value"] == "no" and "bin" in found["fix"]
    (tmp_path / "medssml").write_text("")
    (tmp_path / "medssml").chmod(0o755)
    assert findings(tmp_path, "python")["medssml on the PATH"]["state"] == "ok"


def test_the_offline_flag_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert findings(tmp_path, "network")["HF_HUB_OFFLINE"]["value"] == "on"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "export HF_HUB_OFFLINE=1" in findings(tmp_path, "network")["HF_HUB_OFFLINE"]["value"]
