"""The commands that keep the machine in order: gc, restore, doctor, demo and version."""

from __future__ import annotations

import click

from vethwork import __version__
from vethwork.frontends.cli import options, show
from vethwork.frontends.cli.demo import demo
from vethwork.maintenance import gc as collector
from vethwork.maintenance.doctor import PROBLEM, examine


@click.command()
@options.as_json
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        show.document({"version": __version__})
    else:
        print(f"vethwork {__version__}")


def _report(lines: tuple[str, ...], nothing: str, *, dry: bool, as_json: bool) -> None:
    if as_json:
        show.document(list(lines))
        return
    for line in lines or (nothing,):
        print(f"# {line}" if dry else line)  # what a rehearsal prints is for a shell


@click.command()
@options.dry_run
@options.as_json
def gc(dry: bool, as_json: bool) -> None:
    """Remove what is left of containers that are gone, and what no record knows."""
    with options.open_engine(dry) as engine:
        _report(collector.collect_garbage(engine), "nothing to remove", dry=dry, as_json=as_json)


@click.command()
@options.dry_run
@options.as_json
def restore(dry: bool, as_json: bool) -> None:
    """Bring back what is on record: bridges, links and the whole ruleset; after a reboot, or a flush by somebody."""
    with options.open_engine(dry) as engine:
        _report(collector.restore(engine), "everything is in place", dry=dry, as_json=as_json)


@click.command()
@options.as_json
def doctor(as_json: bool) -> int:
    """Look at the host, and say what is wrong and what to do; exit status 1 if there is a problem."""
    with options.open_engine() as engine:
        findings = examine(engine)
    if as_json:
        show.document(
            [
                {"level": each.level, "subject": each.subject, "found": each.found, "advice": each.advice}
                for each in findings
            ]
        )
    else:
        for each in findings:
            print(f"{each.level:8} {each.subject}: {each.found}")
            if each.advice:
                print(f"{'':8} -> {each.advice}")
    return int(any(each.level == PROBLEM for each in findings))


UPKEEP_COMMANDS = (gc, restore, doctor, demo, version)
