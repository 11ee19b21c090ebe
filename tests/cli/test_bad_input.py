"""What a user can get wrong: exit code 2 and one line on stderr."""

import sqlite3

import pytest

from ntkstats.cli import main

COMMANDS = ("inspect", "plot", "repair", "watch")


def stop(words, capsys):
    """Exit code and the one line on stderr."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return code, captured.err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["inspect"], "RUN"),
        (["inspect", ""], "give one such as 'runs/first'"),
        (["compare", "slow"], "takes two or more runs"),
        (["compare", "slow", "./slow.sqlite"], "given twice"),
        (["compare", "slow", "none"], "there is no run at none.sqlite"),
        (["plot", "slow", "--fields", "entropi"], "entropi"),
        (["plot", "slow", "--kind", "pie"], "invalid choice: 'pie'"),
        (["plot", "slow", "--kind", "spectra", "--fields", "a", "b"], "draws one field"),
        (["plot", "slow", "--kind", "layer_shares", "--fields", "entropy"], "entropy"),
        (["plot", "slow", "--out", "slow.sqlite/figure"], "give another --out"),
        (["plot", "slow", "--out", ".."], "names a folder"),
        (["export", "slow"], "--to"),
        (["export", "slow", "--to", "hdf5"], "invalid choice: 'hdf5'"),
        (["export", "slow", "--to", "csv", "--out", "a.nc"], "does not end in .csv"),
        (["export", "slow", "--to", "csv", "--out", "slow.sqlite/a"], "cannot write"),
        (["watch", "slow", "--interval", "0"], "at least 0.01"),
        (["watch", "slow", "--interval", "nan"], "at least 0.01"),
        (["watch", "slow", "--interval", "soon"], "'soon' is no number"),
        (["watch", "slow", "--rows", "-1"], "from 1 to 1000"),
        (["watch", "slow", "--fields", "entropi"], "no field entropi; choose from entropy"),
    ],
)
def test_bad_words(folder, monkeypatch, capsys, words, part):
    monkeypatch.chdir(folder)
    code, line = stop(words, capsys)
    assert code == 2
    assert part in line


def missing(path):
    pass


def empty(path):
    path.touch()


def text(path):
    path.write_text("step,entropy\n" * 200)


def foreign(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()


def newer(path):
    path.write_bytes((path.parent / "slow.sqlite").read_bytes())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def a_folder(path):
    path.mkdir()


@pytest.mark.parametrize("command", [*COMMANDS, "export"])
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (missing, "there is no run at"),
        (empty, ""),
        (text, "it is not an SQLite file; give the path of a run"),
        (foreign, "not an ntkstats run; give the path of a run"),
        (newer, "upgrade ntkstats"),
        (a_folder, "there is no run at"),
    ],
)
def test_files_that_are_no_run_are_refused_and_left_alone(folder, capsys, command, make, part):
    path = folder / "odd.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    words = [command, path, *(["--to", "csv"] if command == "export" else [])]
    code, line = stop(words, capsys)
    assert code == 2
    assert part in line
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE arrays SET dtype = 'O'",
        "UPDATE arrays SET dtype = '!'",
        "UPDATE arrays SET shape = '[-1, 7]'",
        "UPDATE arrays SET shape = 'import os'",
        "UPDATE arrays SET data = x'00'",
        "UPDATE meta SET value = '{' WHERE key = 'measurement'",
        "DELETE FROM meta WHERE key = 'created'",
        "UPDATE meta SET value = '[1]' WHERE key = 'measurement'",
        "UPDATE fields SET spec = '{}'",
        "UPDATE records SET axes = '7'",
        "DELETE FROM attempts",
    ],
)
@pytest.mark.parametrize("command", ["inspect", "watch", "plot"])
def test_a_store_that_holds_nonsense_is_data_and_never_a_traceback(
    folder, capsys, command, statement
):
    with sqlite3.connect(folder / "slow.sqlite") as db:
        db.execute(statement)
    db.close()
    try:
        code = main([command, str(folder / "slow")])
    except SystemExit as error:
        code = error.code
    err = capsys.readouterr().err
    assert (code, err) == (0, "") or (code == 2 and err.startswith("error: ")), (code, err)
