"""`./run`: the environment is made once and safely, and what runs in it is the thing itself.

Installers are stood in for by scripts, so that no test needs a network.
"""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2]

FAKE_UV = """#!/bin/sh
[ "$1" = sync ] && echo "$@" >> "{log}"
[ "$1" = python ] && exec cat "{listing}"
[ "$1" = run ] && {{ echo "error: No interpreter found for Python $5" >&2; exit 2; }}
[ -e "{broken}" ] && {{ echo "error: no route to pypi" >&2; exit 2; }}
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin" "$UV_PROJECT_ENVIRONMENT/lib/python3.11/site-packages"
cp "{python}" "$UV_PROJECT_ENVIRONMENT/bin/python"
"""
LISTING = """\
cpython-3.13.0-linux-x86_64-gnu     /opt/python 3.13/bin/python3
cpython-3.12.10-linux-x86_64-gnu    /usr/bin/python3.12
cpython-3.12.9-linux-x86_64-gnu     /usr/bin/python3 -> python3.12
cpython-3.12.9-linux-x86_64-gnu     /usr/bin/python -> python3.12
cpython-3.10.1-linux-x86_64-gnu     /usr/bin/python3.10
pypy-3.11.1-linux-x86_64-gnu        /usr/bin/pypy
"""
FAKE_PYTHON = """#!/bin/sh
echo "pid=$$ cwd=$(pwd) arguments=$*"
case "$*" in
    *fail-with-7*) exit 7 ;;
    *wait*) trap 'exit 9' INT; echo ready; while :; do read -r _; done ;;
esac
"""


class Checkout:
    """A copy of what `./run` needs, and a uv that is a script."""

    def __init__(self, directory: Path) -> None:
        self.top = directory / "a checkout"
        self.top.mkdir()
        for name in ("run", "uv.lock"):
            shutil.copy(SOURCE / name, self.top / name)
        self.tools = directory / "tools"
        self.tools.mkdir()
        self.log = directory / "log"
        self.broken = directory / "broken"
        python = directory / "python"
        python.write_text(FAKE_PYTHON)
        listing = directory / "listing"
        listing.write_text(LISTING)
        uv = self.tools / "uv"
        uv.write_text(
            FAKE_UV.format(log=self.log, broken=self.broken, python=python, listing=listing)
        )
        uv.chmod(0o755)
        python.chmod(0o755)

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": f"{self.tools}:/usr/bin:/bin", "HOME": ""}

    def start(self, *arguments: str, here: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.top / "run"), *arguments],
            env=self.variables,
            cwd=here or "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 -- no thread of ours runs here
        )

    def run(self, *arguments: str, here: Path | None = None) -> tuple[int, str, str]:
        with self.start(*arguments, here=here) as process:
            out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def installs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def _hear_ctrl_c() -> None:
    """Undoes what a shell does to the jobs that it runs in the background: they ignore SIGINT, children included."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("run_script", str(SOURCE / "run"))
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_help_lists_every_target_and_installs_nothing(copy: Checkout, script: ModuleType):
    code, out, _ = copy.run("--help")
    assert code == 0
    assert copy.installs() == 0
    targets = {"setup", "pythons", "uv", "lint", "fix", "ci", *script.COMMANDS}
    assert not [target for target in targets if f"\n  {target} " not in out]


def test_a_second_start_installs_nothing(copy: Checkout):
    assert copy.run("setup")[0] == 0
    assert copy.run("setup")[0] == 0
    assert copy.installs() == 1
    assert "--frozen" in copy.log.read_text()


def test_a_changed_lock_or_a_moved_checkout_installs_again(copy: Checkout):
    copy.run("setup")
    with (copy.top / "uv.lock").open("a") as lock:
        lock.write("\n")
    copy.run("setup")
    assert copy.installs() == 2
    copy.top = copy.top.rename(copy.top.with_name("moved"))
    copy.run("setup")
    assert copy.installs() == 3


def test_two_starts_at_once_install_once(copy: Checkout):
    processes = [copy.start("setup") for _ in range(4)]
    assert [process.wait(30) for process in processes] == [0, 0, 0, 0]
    for process in processes:
        process.communicate()
    assert copy.installs() == 1


def test_a_failed_install_says_why_and_is_tried_again(copy: Checkout):
    copy.broken.touch()
    code, out, err = copy.run("setup")
    assert (code, out) == (1, "")
    assert "error: no route to pypi" in err
    assert "Check that pypi.org and" in err
    assert "Traceback" not in err
    copy.broken.unlink()
    assert copy.run("setup")[0] == 0


def test_run_command_gets_arguments_and_folder_and_its_exit_code(copy: Checkout, tmp_path: Path):
    with copy.start("event", "list", "--limit", "a b", "fail-with-7", here=tmp_path) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 7
    # The same process id: a signal for ./run is a signal for the command.
    words = "-P -m dispatcher event list --limit a b fail-with-7"
    assert out == f"pid={process.pid} cwd={tmp_path} arguments={words}\n"


def test_alone_it_starts_dev(copy: Checkout):
    assert copy.run()[1].endswith("arguments=-P -m dispatcher dev\n")


def test_ctrl_c_reaches_the_command(copy: Checkout):
    with copy.start("wait") as process:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 9


def test_the_environment_has_the_command_and_the_checkout(copy: Checkout):
    copy.run("setup")
    packages = copy.top / ".venv/lib/python3.11/site-packages"
    assert (packages / "dispatcher_checkout.pth").read_text() == f"{copy.top}\n"
    finished = subprocess.run(
        [copy.top / ".venv/bin/dispatcher", "x y"],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert finished.stdout.endswith("arguments=-P -m dispatcher x y\n")


def test_read_only_checkout_environment_goes_to_a_private_folder(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(script, "CHECKOUT", tmp_path / "theirs")
    monkeypatch.setattr(
        script, "can_write", lambda path: not path.is_relative_to(tmp_path / "theirs")
    )
    monkeypatch.setenv("DISPATCHER_HOME", str(tmp_path / "given"))
    assert script.environment_directory().parent == tmp_path / "given"
    monkeypatch.delenv("DISPATCHER_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert script.environment_directory().parent == tmp_path / ".cache" / "dispatcher"
    monkeypatch.setattr(script, "home_directory", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert script.environment_directory().parent == tmp_path / f"dispatcher-{os.getuid()}"


def test_a_temporary_folder_that_others_can_write_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(script, "home_directory", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"dispatcher-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(script.SetupError, match="not a private folder"):
        script.private_directory()


@pytest.fixture
def without_uv(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[ModuleType, Path]:
    """`run` on a machine without uv, whose interpreter is a script: its path is the second value."""
    python = tmp_path / "python"
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    monkeypatch.setattr(script, "base_interpreter", lambda: str(python))
    monkeypatch.setenv("DISPATCHER_HOME", str(tmp_path / "home"))
    return script, python


def test_without_uv_pip_installs_the_locked_one_by_hash(
    without_uv: tuple[ModuleType, Path], tmp_path: Path
):
    script, python = without_uv
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -c ] && exit 0
echo "$@" >> "{tmp_path}/pip-log"
while [ "$#" != 1 ]; do
    [ "$1" = --target ] && target=$2
    shift
done
cp "$1" "{tmp_path}/requirement.txt"
mkdir -p "$target/bin" && touch "$target/bin/uv"
"""
    )
    python.chmod(0o755)
    version = re.search(r'name = "uv"\nversion = "(.+)"', (SOURCE / "uv.lock").read_text())
    assert version is not None
    uv = tmp_path / "home" / f"uv-{version[1]}" / "bin" / "uv"
    assert [script.find_uv(), script.find_uv()] == [str(uv), str(uv)]
    [call] = (tmp_path / "pip-log").read_text().splitlines()
    assert "--require-hashes" in call
    assert "--only-binary=:all:" in call
    requirement = (tmp_path / "requirement.txt").read_text()
    assert requirement.startswith(f"uv=={version[1]} --hash=sha256:")
    assert requirement.count("--hash=sha256:") > 10
    assert [path.name for path in uv.parents[2].iterdir()] == [uv.parents[1].name]


def test_without_uv_and_pip_the_message_has_the_remedy(without_uv: tuple[ModuleType, Path]):
    script, python = without_uv
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(script.SetupError) as caught:
        script.find_uv()
    assert "neither uv nor pip is installed" in str(caught.value)
    assert "apt install python3-pip" in str(caught.value)


def test_old_python_starts_a_newer_one_that_uv_finds(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(script, "PYTHON_MINIMUM", (4, 0))
    requests: list[str] = []

    def start_again(request: str, _arguments: list[str]) -> None:
        requests.append(request)
        raise script.SetupError("stop here")

    monkeypatch.setattr(script, "start_again", start_again)
    assert script.main(["setup"]) == 1
    assert requests == [">=3.11"]


def test_installers_get_no_variable_that_sends_packages_elsewhere(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    for name in ("PIP_USER", "PIP_TARGET", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "1")
    variables = script.installer_variables()
    assert not {"PIP_USER", "PIP_TARGET", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(
        variables
    )


def test_a_failing_step_does_not_hide_the_later_ones(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(script, "CHECKOUT", tmp_path)
    steps = {"first": ["false"], "second": ["echo", "was here"]}
    assert script.run_steps(steps, tmp_path / ".venv") == 1
    out, err = capfd.readouterr()
    assert out == "was here\n"
    assert "first: failed" in err
    assert err.endswith("Failed: first\n")
    assert script.run_steps({"second": ["true"]}, tmp_path / ".venv") == 0


def test_halves_of_the_unit_tests_leave_no_file_out(script: ModuleType):
    files = {f"tests/unit/{path.name}" for path in (SOURCE / "tests" / "unit").glob("test_*.py")}
    first, second = (
        {word.removeprefix("--ignore=") for word in command if word.startswith("--ignore=")}
        for command in script.unit_test_steps().values()
    )
    assert first | second == files
    assert not first & second


def test_chosen_python_gets_an_environment_of_its_own(copy: Checkout):
    assert copy.run("--python", sys.executable, "x")[0] == 0
    suffix = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (copy.top / f".venv-{suffix}").is_dir()
    assert not (copy.top / ".venv").exists()
    assert copy.run("x")[0] == 0
    assert (copy.top / ".venv").is_dir()


def test_other_build_of_a_chosen_version_gets_the_environment_anew(
    copy: Checkout, script: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    copy.run("--python", sys.executable, "x")
    environment = next(copy.top.glob(".venv-*"))
    monkeypatch.setattr(script, "CHECKOUT", copy.top)
    monkeypatch.setenv(script.CHOSEN, "1")
    assert script.is_ready(environment)
    monkeypatch.setattr(script, "base_interpreter", lambda: "/usr/bin/true")
    assert not script.is_ready(environment)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.8, ["/quick", ["bench", "drain"]]), (0.98, None), (float("inf"), None)],
)
def test_bench_starts_the_build_of_its_version_that_is_clearly_quicker(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    expected: list[object] | None,
):
    version = f"{sys.version_info.major}.{sys.version_info.minor}.99"
    started: list[list[object]] = []
    monkeypatch.setattr(script, "interpreters", lambda: [(version, "/quick"), ("3.99.1", "/other")])
    monkeypatch.setattr(
        script,
        "loop_seconds",
        lambda paths: {path: seconds if path == "/quick" else 1.0 for path in paths},
    )

    def start_again(path: str, arguments: list[str], *, is_chosen: bool) -> None:
        assert is_chosen
        started.append([path, arguments])

    monkeypatch.setattr(script, "start_again", start_again)
    script.start_with_quickest(["bench", "drain"])
    assert started == ([expected] if expected else [])
    assert script.CHOSEN not in os.environ


def test_loop_of_an_interpreter_that_cannot_start_takes_forever(script: ModuleType):
    seconds = script.loop_seconds([sys.executable, "/usr/bin/false", "/missing"])
    assert seconds["/usr/bin/false"] == seconds["/missing"] == float("inf")
    assert 0 < seconds[sys.executable] < 60


def test_python_that_is_not_found_is_an_error_with_a_remedy(copy: Checkout):
    code, _, err = copy.run("--python", "3.99", "x")
    assert code == 1
    assert "No interpreter found for Python 3.99" in err
    assert "Install Python 3.99, or give the path of an interpreter." in err
    code, _, err = copy.run("--python")
    assert (code, err) == (1, "./run: --python needs a version, such as 3.13, or a path.\n")


def test_pythons_lists_each_supported_version_once_oldest_first(copy: Checkout):
    code, out, _ = copy.run("pythons")
    assert code == 0
    assert out.splitlines() == [
        "3.12.9 /usr/bin/python3",
        "3.12.10 /usr/bin/python3.12",
        "3.13.0 /opt/python 3.13/bin/python3",
    ]


def test_uv_gets_arguments_and_gives_its_exit_code(copy: Checkout):
    code, _, err = copy.run("uv", "run", "a", "b", "c", "d")
    assert code == 2
    assert "Python d" in err
