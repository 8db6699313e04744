"""What happens where a program is absent: a visible skip, and in CI a failure unless it could not be had."""

import pytest

from tests.support.tools import need

ABSENT = "a-program-that-nobody-has"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("CI_PACKAGES_ABSENT", raising=False)


def test_a_program_that_is_there_is_found():
    assert need("sh").endswith("/sh")


def test_elsewhere_the_test_skips_and_says_which_package_to_install():
    with pytest.raises(pytest.skip.Exception, match="Debian has it in that-package"):
        need(ABSENT, package="that-package")


def test_in_ci_the_test_fails(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="that-package"):
        need(ABSENT, package="that-package")


def test_in_ci_a_package_that_could_not_be_had_is_a_skip(monkeypatch):
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CI_PACKAGES_ABSENT", "other that-package")
    with pytest.raises(pytest.skip.Exception):
        need(ABSENT, package="that-package")


def test_what_no_package_brings_is_a_skip_in_ci_too(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception):
        need(ABSENT)
