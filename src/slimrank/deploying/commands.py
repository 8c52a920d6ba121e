"""The verbs on deployments, `export` aside. What they need is imported where it is used."""

from __future__ import annotations

import typer

deployed = typer.Typer()
