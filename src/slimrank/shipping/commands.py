"""The verbs that send artifacts: pack, unpack, delta, apply. What they need is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

shipping = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory of an artifact.")]
Old = Annotated[Path, typer.Argument(metavar="OLD", help="The artifact that is there.")]
Out = Annotated[Path, typer.Option(help="The directory to write; an artifact that is there is replaced in one step.")]


@shipping.command()
def pack(artifact: Folder, out: Annotated[Path, typer.Option(help="The file to write, such as model.slim.")]) -> None:
    """Write an artifact as one compressed file."""
    from slimrank.shipping.packing import pack

    made = pack(artifact, out)
    typer.echo(f"{out}: {made.bytes:,} bytes, {made.bytes / made.artifact_bytes:.1%} of {made.artifact_bytes:,}")


@shipping.command()
def unpack(file: Annotated[Path, typer.Argument(metavar="FILE", help="What pack wrote.")], out: Out) -> None:
    """Write the artifact in a file of pack, verified before it is in its place."""
    from slimrank.shipping.packing import unpack

    typer.echo(unpack(file, out))


@shipping.command()
def delta(
    old: Old,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The artifact that is to be there.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    portable: Annotated[bool, typer.Option("--portable", help="For devices with another release of polars.")] = False,
) -> None:
    """Write what changed from OLD to NEW, for whoever has OLD."""
    from slimrank.shipping.delta import delta

    made = delta(old, new, out, portable=portable)
    whole, packed = made.artifact_bytes, made.packed_bytes
    typer.echo(
        f"{out}: {made.bytes:,} bytes, {made.bytes / whole:.1%} of the artifact's {whole:,}, "
        f"{made.bytes / packed:.1%} of its {packed:,} on the wire"
    )


@shipping.command()
def apply(old: Old, file: Annotated[Path, typer.Argument(metavar="FILE", help="What delta wrote.")], out: Out) -> None:
    """Make NEW of OLD and a delta, bit for bit or not at all; --out may be OLD."""
    from slimrank.shipping.delta import apply

    typer.echo(apply(old, file, out))
