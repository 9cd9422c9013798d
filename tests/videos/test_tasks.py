"""The messages between a run and its workers."""

import subprocess
import sys


def test_a_worker_loads_the_decoder_and_none_of_the_settings() -> None:
    heavy = {"pydantic", "typer", "rich", "pandas", "torch"}
    code = f"import sys, rspnet_cli.videos.extract_video; print(sorted({heavy} & sys.modules.keys()), 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"
