"""Checks of a plug-in: what each finds, and how a test or a table runs them."""

import unittest
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bench.errors import BenchError, SkippedError, one_line
from bench.system.random_state import preserved_randomness

Outcome = Literal["passed", "failed", "not applicable"]


class CheckFailedError(AssertionError):
    """A plug-in breaks its contract; the message says what is wrong and how to mend it."""


class NotApplicableError(unittest.SkipTest):
    """A check has nothing to check in this plug-in; pytest and unittest count it as skipped."""


@dataclass(frozen=True)
class CheckResult:
    """The end of a check.

    Attributes:
        check: name of the check.
        outcome: ``passed``, ``failed`` or ``not applicable``.
        message: what is wrong and how to mend it, why the check does not apply, or a remark about
            what passed; one line, empty if there is none.
    """

    check: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One check of one plug-in. Call it in a test; ``str`` of it is its name, for the test's ID.

    Attributes:
        name: what holds if the check passes.
        function: function that raises if it does not hold, and can return a remark.
    """

    name: str
    function: Callable[[], str | None]

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> str | None:
        """Run the check; the state of the global random generators stays as it is.

        Returns:
            A remark about what passed, or None.

        Raises:
            CheckFailedError: the plug-in breaks its contract.
            NotApplicableError: there is nothing to check.
        """
        with preserved_randomness():
            try:
                return self.function()
            except (CheckFailedError, NotApplicableError):
                raise
            except SkippedError as error:
                raise NotApplicableError(str(error)) from error
            except BenchError as error:
                raise CheckFailedError(str(error)) from error
            except Exception as error:
                raise CheckFailedError(one_line(error)) from error

    def result(self) -> CheckResult:
        """Run the check, and return how it ended."""
        try:
            remark = self()
        except CheckFailedError as error:
            return CheckResult(self.name, "failed", " ".join(str(error).split()))
        except NotApplicableError as error:
            return CheckResult(self.name, "not applicable", " ".join(str(error).split()))
        return CheckResult(self.name, "passed", remark or "")


def results(checks: Iterable[Check]) -> list[CheckResult]:
    """Run checks, and return how each ended.

    >>> results([Check("one is one", lambda: require(1 == 1, "it is not"))])
    [CheckResult(check='one is one', outcome='passed', message='')]
    """
    return [check.result() for check in checks]


def require(holds: object, message: str) -> None:
    """Fail the check that calls this, unless something holds.

    Raises:
        CheckFailedError: it does not hold.
    """
    if not holds:
        raise CheckFailedError(message)
