"""--print-slurm: a script that a shell understands, and that asks to be run again where the run was stopped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from medssml import cli
from medssml.runs.slurm import script
from medssml.runs.training_config import DataSettings
from medssml.trainers.settings import TrainerSettings

COMMAND = ["pretrain", "--config", "smoke/pretrain", "--manifest", "a b/m.csv", "--out", "runs/x", "--print-slurm"]


def run_with(folder: Path, text: str, code: int) -> tuple[int, str]:
    """Exit code of the script where srun ends with `code`, and what srun and scontrol were asked for."""
    for name, ends in (("srun", code), ("scontrol", 0)):
        tool = folder / name
        tool.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name}" "$@" >> "{folder}/asked"\nexit {ends}\n')
        tool.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(["bash", "-c", text.replace("\nsource ", "\n# ")], env=environment)
    return done.returncode, (folder / "asked").read_text()


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_script_runs_the_command_and_asks_again_when_it_was_stopped(tmp_path: Path, code: int) -> None:
    text = script(COMMAND, TrainerSettings(max_steps=1, devices=4, num_nodes=2), DataSettings(num_workers=3))
    ended, asked = run_with(tmp_path, text, code)
    assert ended == code
    assert asked.startswith("srun\nmedssml\npretrain\n--config\nsmoke/pretrain\n--manifest\na b/m.csv\n--out\nruns/x\n")
    assert ("scontrol\nrequeue\n17\n" in asked) == (code == 75)


def test_nodes_and_devices_are_those_of_the_config_and_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*COMMAND, "--num-nodes", "2", "--set", "trainer.devices=4", "--set", "data.num_workers=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "#!/bin/bash"
    for wanted in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8", "--signal=TERM@180"):
        assert f"#SBATCH {wanted}" in lines
    assert cli.main([*COMMAND, "--device", "cpu"]) == 0
    assert "gpus" not in capsys.readouterr().out
