"""Messages: where they go, what -q and -v change, the live line of a terminal, and programs with
handlers of their own."""

import io
import logging
import sys

import pytest

from vlp_jax import reporting
from vlp_jax.command_line import Flags
from vlp_jax.errors import ConfigError
from vlp_jax.reporting import (
    detail,
    finish_live_line,
    live_line,
    remark,
    report,
    set_verbosity,
    warn,
)


@pytest.fixture(autouse=True)
def usual():
    yield
    set_verbosity()
    reporting._live.clear()


def say():
    detail("a detail")
    report("a fact")
    remark("a remark")
    warn("look out")


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        ([], "a fact\nwarning: look out\n"),
        (["-v"], "a detail\na fact\nwarning: look out\n"),
        (["-q"], "warning: look out\n"),
        (["--quiet"], "warning: look out\n"),
    ],
)
def test_verbosity_is_chosen_by_flags_of_every_entry_point(capsys, flags, out):
    Flags(prog="any").parse_with_overrides(flags)
    say()
    assert capsys.readouterr() == (out, "a remark\n")


def test_quiet_and_verbose_exclude_each_other():
    with pytest.raises(ConfigError, match="not allowed with argument"):
        Flags(prog="any").parse(["-q", "-v"])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_message_is_printed_above_the_live_line(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    live_line("step 1")
    live_line("step 2")
    warn("slow")
    finish_live_line()
    report("end")
    clear = reporting.CLEAR
    assert screen.getvalue() == (
        f"{clear}step 1{clear}step 2{clear}warning: slow\n{clear}step 2\nend\n"
    )


def test_without_a_terminal_and_when_quiet_there_is_no_live_line(capsys, monkeypatch):
    live_line("step 1")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "stdout", Terminal())
    set_verbosity(quiet=True)
    live_line("step 1")
    assert sys.stdout.getvalue() == ""


def test_control_characters_are_escaped(capsys):
    report("key\x1b[2J")
    assert capsys.readouterr().out == "key\\u001b[2J\n"


def test_a_program_with_a_handler_of_its_own_gets_the_records_instead(capsys, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(reporting.LOGGER, "handlers", [logging.StreamHandler(stream)])
    report("a fact")
    assert stream.getvalue() == "a fact\n" and capsys.readouterr() == ("", "")


def test_braces_and_percent_signs_are_text(capsys):
    report("100% of {x} %s")
    assert capsys.readouterr().out == "100% of {x} %s\n"
