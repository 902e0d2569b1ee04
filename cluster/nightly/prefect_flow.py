"""A night as a flow of Prefect 3: `python prefect_flow.py` serves it, on a machine that has emolib."""

import subprocess

from prefect import flow, task

COMMAND = ["/opt/emolib/bin/emolib", "nightly", "--config", "/etc/emolib/nightly.toml"]


class InterruptedNight(Exception):  # noqa: N818
    """To be run again; no other exit code is: that would hide it."""


def is_interrupted(_task, _run, state):
    return isinstance(state.result(raise_on_failure=False), InterruptedNight)


@task(retries=4, retry_delay_seconds=300, retry_condition_fn=is_interrupted)
def night():
    with subprocess.Popen(COMMAND) as process:
        try:
            code = process.wait()
        finally:
            process.terminate()  # if Prefect stops the task: it waits up to 90 s for what is under way
    if code == 5:
        raise InterruptedNight
    if code not in (0, 3):  # 3: another run is at it
        raise RuntimeError(f"exit code {code}")


@flow
def emolib_nightly():
    night()


if __name__ == "__main__":
    emolib_nightly.serve(name="emolib-nightly", cron="0 1 * * *", limit=1)
