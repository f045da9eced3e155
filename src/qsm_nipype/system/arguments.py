"""Command lines: what is wrong is one sentence, with the word that was meant."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from qsm_nipype.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser that ends with one sentence and exit code 2 instead of its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, what was meant, and where the help is."""
        self.exit(2, f"{self.prog}: {self._sentence(message)}; see {self.prog} --help\n")

    def _sentence(self, message: str) -> str:
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL)
        if unknown:
            words = unknown[1].split()
            word = next((w for w in words if w.startswith("-")), words[0] if words else "''")
            flag = word.split("=")[0]
            near = did_you_mean(flag, self._option_string_actions)
            return f"{flag}: there is no such option{near}"
        pattern = r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)"
        choice = re.fullmatch(pattern, message, re.DOTALL)
        if choice:
            known = [name.strip(" '") for name in choice[3].split(",")]
            near = did_you_mean(choice[2], known)
            return f"{choice[1]}: there is no {choice[2]!r}{near or f'; give {choice[3]}'}"
        return message.removeprefix("argument ")
