"""Processes end with what they depend on, even in the middle of a computation."""

import subprocess
import sys
import textwrap
import time

import pytest


def start(script, *arguments, **options):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **options)  # noqa: S603


@pytest.mark.parametrize("status", [0, 3])
def test_a_process_ends_with_its_input(status):
    script = """
        import sys, time
        from fedscgen._processes import end_after
        end_after(sys.stdin.read, status=int(sys.argv[1]))
        print("ready", flush=True)
        time.sleep(60)
    """
    with start(script, status, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(5) == status


def test_a_process_ends_if_what_it_depends_on_fails():
    script = """
        import time
        from fedscgen._processes import end_after
        end_after(lambda: 1 / 0)
        time.sleep(60)
    """
    with start(script) as process:
        assert process.wait(10) == 0
        assert "ZeroDivisionError" in process.stderr.read()


@pytest.mark.parametrize("reason", ["the other is gone", "a condition holds"])
def test_a_process_ends_with_another_or_when_a_condition_holds(reason, tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from fedscgen._processes import end_with
        end_with(int(sys.argv[1]), also_if=Path(sys.argv[2]).exists)
        print("ready", flush=True)
        time.sleep(60)
    """
    with start("import time; time.sleep(60)") as other:
        with start(script, other.pid, tmp_path / "condition", stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(1.5)
            assert process.poll() is None
            if reason == "a condition holds":
                (tmp_path / "condition").touch()
            else:
                other.kill()
                other.wait(5)
            assert process.wait(5) == 1
            assert "this process ends" in process.stderr.read()
        other.kill()
