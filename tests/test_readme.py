"""The README says what the program does: its commands exist, its table of settings is the config's."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from rspnet_cli.cli.main import main
from rspnet_cli.config import FinetuneConfig, ModelConfig, PretrainConfig
from rspnet_cli.encoder.registry import BACKBONES
from rspnet_cli.recipes import STAGES, recipe_names
from rspnet_cli.settings import finetune_settings, pretrain_settings, settings_table
from tests.encoder.test_backbones import PUBLISHED

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if "rspnet " in line]


@pytest.mark.parametrize(("stage", "config"), [("pretrain", PretrainConfig), ("finetune", FinetuneConfig)])
def test_the_tables_of_settings_are_generated(stage: str, config: type[PretrainConfig] | type[FinetuneConfig]) -> None:
    after = README.split(f"<!-- settings of {stage}:", 1)[1]
    table = after.split("-->\n", 1)[1].split("\n<!-- /settings -->")[0]
    assert table == settings_table(config)


def test_every_recipe_is_named() -> None:
    assert all(f"`{name}`" in README for stage in STAGES for name in recipe_names(stage))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_its_row(name: str) -> None:
    parameters, (channels, *sizes) = PUBLISHED[name]
    figures = f"{channels} | {parameters:,} | {' x '.join(map(str, sizes))}"
    assert re.search(rf"^\| `{name}` \| [^|]+ \| {re.escape(figures)} \|$", README, flags=re.MULTILINE)


def test_the_setting_names_every_backbone() -> None:
    description = ModelConfig.model_fields["backbone"].description or ""
    assert re.findall(r"[\w-]+", description.partition(":")[2].replace(" or ", " ")) == list(BACKBONES)


def test_the_main_job_is_there() -> None:
    stages = (
        *("extract", "pretrain", "export-features", "eval-retrieval", "eval-classification", "finetune", "inspect", "report"),
        *("preview", "visualize", "search", "import-checkpoint", "bench"),
    )
    assert all(any(f"rspnet {stage}" in command for command in COMMANDS) for stage in stages)


@pytest.mark.parametrize("command", sorted({command for command in COMMANDS if command.startswith("rspnet ")}))
def test_every_option_of_a_command_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    assert main([words[0], "--help"]) == 0
    help_text = capsys.readouterr().out
    for word in words[1:]:
        if word.startswith("--"):
            assert re.search(rf"{word}\b", help_text), f"{word} is no option of {words[0]}"
    settings = dict.fromkeys(("pretrain", "preview", "bench"), pretrain_settings) | {"finetune": finetune_settings}
    for word, setting in pairwise(words):
        if word == "--set":
            settings[words[0]](sets=[setting])


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
