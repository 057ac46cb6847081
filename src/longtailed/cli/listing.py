"""What `longtailed list` prints: names with notes, and the table of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longtailed.cli.catalogue import recipe_row
from longtailed.recipes import recipe_note
from longtailed.recipes.published import figures_of

MOST_EXPLAINED = 3  # recipes that are listed with their documentation


def print_names(notes: Mapping[str, str], *, merge: bool = True) -> None:
    """Print names with a note about each; with `merge`, once for all names that share it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    sharing: dict[str, list[str]] = {}
    for name, note in notes.items():
        sharing.setdefault(note if merge else name, []).append(name)
    for names in sharing.values():
        table.add_row("\n".join(names), escape(notes[names[0]]))
    Console().print(table)


def print_recipes(names: Sequence[str]) -> None:
    """Print a line about each recipe; of up to `MOST_EXPLAINED`, also what is known of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("recipe", "data", "epochs"):
        table.add_column(column, no_wrap=True)
    table.add_column("top-1", justify="right", no_wrap=True)
    for name in names:
        table.add_row(*recipe_row(name))
    console = Console(highlight=False)
    console.print(table)
    print("top-1: published accuracy, percent; ~ not seen in its source itself.")
    if len(names) > MOST_EXPLAINED:
        print("With more words the list is shorter, and says more about each recipe.")
        return
    for name in names:
        console.print(f"\n{escape(f'{name}: {_unwrapped(recipe_note(name))}')}")
        for row in figures_of(name):
            changed = " ".join(row.overrides)
            console.print(escape(f"- {f'with {changed}: ' if changed else ''}{row.sentence}."))


def _unwrapped(text: str) -> str:
    """Return the paragraphs of a text, each on one line."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
