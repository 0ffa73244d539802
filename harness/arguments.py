"""What the commands' argument parsers share."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from harness.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are ``UsageError``."""

    def error(self, message: str) -> NoReturn:
        """Raise, where argparse would print and exit."""
        raise UsageError(f"{message}.\nSee {self.prog} --help.")


def whole_number(*, digits: int) -> Callable[[str], int]:
    """An argument type: a whole number from 0, of at most so many digits."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > digits:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0")
        return int(text)

    return read


def count(*, digits: int) -> Callable[[str], int]:
    """An argument type: a whole number from 1, of at most so many digits."""
    whole = whole_number(digits=digits)

    def read(text: str) -> int:
        number = whole(text)
        if number == 0:
            raise argparse.ArgumentTypeError("0 is too few; write a whole number from 1")
        return number

    return read


def number_up_to(most: int) -> Callable[[str], int]:
    """An argument type: a whole number from 1 to ``most``."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and 0 < int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")

    return read
