"""Loads the statements of `sql/`: one a file, named by the file."""

from importlib import resources

_SQL = {
    entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
    for entry in resources.files("dispatcher.store").joinpath("sql").iterdir()
    if entry.name.endswith(".sql")
}


def statement(name: str) -> str:
    """Return the text of `sql/<name>.sql`.

    Raises:
        KeyError: there is no such file; modules ask at import, so that a slip is seen at start.
    """
    return _SQL[name]


def names() -> frozenset[str]:
    """Return the names of all statements; a test proves that each is used."""
    return frozenset(_SQL)
