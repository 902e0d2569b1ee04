"""A night as a job of Dagster: `dagster dev -f dagster_job.py`, on a machine that has emolib."""

import subprocess

import dagster as dg

COMMAND = ["/opt/emolib/bin/emolib", "nightly", "--config", "/etc/emolib/nightly.toml"]


@dg.op
def night():
    with subprocess.Popen(COMMAND) as process:
        try:
            code = process.wait()
        finally:
            process.terminate()  # if Dagster stops the op: it waits up to 90 s for what is under way
    if code == 5:
        raise dg.RetryRequested(max_retries=4, seconds_to_wait=300)
    if code not in (0, 3):  # 3: another run is at it
        raise dg.Failure(f"exit code {code}", allow_retries=False)  # a second run would hide it


@dg.job
def emolib_nightly():
    night()


defs = dg.Definitions(schedules=[dg.ScheduleDefinition(job=emolib_nightly, cron_schedule="0 1 * * *")])
