"""`rspnet`: parse, call, print. Every error becomes one line on stderr and an exit code; there is no logic here.

Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 / 143 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.markup import escape

from rspnet_cli import __version__
from rspnet_cli.distributed import is_main
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.stopping import stoppable

COMMANDS = (
    *("extract", "pretrain", "export-features", "eval-retrieval", "eval-classification", "finetune", "merge", "slurm", "inspect", "report"),
    *("preview", "visualize", "search", "import-checkpoint", "export-checkpoint", "recipes", "reproduce", "bench"),
)
"""In the order of --help; each is the function of its name in the module of its name."""
# Options that take several values as typed (`--topk 1 5 10`, `--topk 1,5,10`); Typer's lists want the option repeated. File names may hold
# a comma, so those of --videos are separate words, up to the next option.
_LIST_OPTIONS = {"--topk", "--also", "--videos"}
# Commands that continue where they were stopped.
_CONTINUED = {"extract", "pretrain", "export-features", "eval-retrieval", "eval-classification", "finetune", "merge", "import-checkpoint"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rspnet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; None: sys.argv) and return its exit code."""
    args = repeat_list_options(list(sys.argv[1:] if argv is None else argv))
    if args and args[0] in _CONTINUED and "--dry-run" not in args:
        return stoppable(lambda: _run(args))
    return stoppable(lambda: _run(args), kept="nothing is kept to go on from, the same command begins anew")


def group_of(*names: str) -> Any:
    """The command line as typer builds it, with some of its `commands` (none named: all): to build all takes a sixth of a call for help."""
    app = typer.Typer(
        name="rspnet",
        help="Learn motion and appearance features from unlabelled video (RSPNet, AAAI 2021), stage by stage: extract, pretrain, "
        "export-features, eval-retrieval, eval-classification, finetune. Each reads what the one before it wrote in the work directory.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names or COMMANDS:
        function = name.replace("-", "_")
        settings = {"allow_extra_args": True, "ignore_unknown_options": True} if name == "slurm" else None
        app.command(name, context_settings=settings)(getattr(import_module(f"rspnet_cli.cli.{function}"), function))
    return typer.main.get_command(app)


def program(*names: str) -> Any:
    """The same, its help to be printed as it is written: rich would take words in square brackets for markup and swallow them."""
    group = group_of(*names)
    for command in (group, *group.commands.values()):
        for part in (command, *command.params):
            if getattr(part, "help", None):
                part.help = escape(part.help)
    return group


def _run(args: list[str]) -> int:
    try:
        program(*args[:1] if args and args[0] in COMMANDS else ())(args=args, prog_name="rspnet")
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    except RspnetError as error:
        if is_main() or error.of_this_rank:
            _say(f"rspnet: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader (`| head`) has left: nothing to say, and nothing more to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _say(f"rspnet: {error.filename} is longer than the name of a file can be: name another.")
        return InputError.exit_code
    return 0


def repeat_list_options(args: list[str]) -> list[str]:
    """`--topk 1 5,10` -> `--topk 1 --topk 5 --topk 10`; everything else, and all after `--`, stays as it is."""
    rewritten: list[str] = []
    position = 0
    while position < len(args):
        name, equals, value = args[position].partition("=")
        position += 1
        if name == "--":
            return [*rewritten, "--", *args[position:]]
        if name not in _LIST_OPTIONS:
            rewritten.append(args[position - 1])
            continue
        values = [value] if equals else []
        if not equals and position < len(args):
            values.append(args[position])
            position += 1
        while position < len(args) and _goes_on(name, args[position]):
            values.append(args[position])
            position += 1
        items = values if name == "--videos" else [item for text in values for item in text.split(",") if item] or values
        for item in items:
            rewritten += [name, item]
        if not items:
            rewritten.append(name)
    return rewritten


def _goes_on(option: str, word: str) -> bool:
    """Whether a word after the first value of a list option is another one."""
    return (option == "--topk" and word.replace(",", "").isdigit()) or (option == "--videos" and not word.startswith("-"))


def _say(text: str) -> None:
    # A name that is no UTF-8 must not turn an error message into another error.
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
