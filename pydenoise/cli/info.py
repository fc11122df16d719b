"""`pydenoise info`: what is built, what runs, and why the rest does not."""

from __future__ import annotations

import typer

from pydenoise.cli.console import Json, print_json


def info(as_json: Json = False) -> None:
    """Show what is built, what runs here, and why the rest does not."""
    import pydenoise

    if as_json:
        import torch

        from pydenoise import ops

        print_json(
            {
                "version": pydenoise.__version__,
                **ops.running(),
                "algorithm": ops.current_algorithm(),
                "threads": torch.get_num_threads(),
                "backends": ops.backends(),
                "config": pydenoise.show_config(),
            }
        )
    else:
        typer.echo(pydenoise.show_config())
