"""A night as a DAG of Airflow 3. The file goes into its folder of DAGs; the worker that runs it has emolib."""

import subprocess
from datetime import datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

COMMAND = ["/opt/emolib/bin/emolib", "nightly", "--config", "/etc/emolib/nightly.toml"]


@dag(schedule="0 1 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def emolib_nightly():
    @task(retries=4, retry_delay=timedelta(minutes=5))
    def night():
        with subprocess.Popen(COMMAND) as process:
            try:
                code = process.wait()
            finally:
                process.terminate()  # if Airflow stops the task: it waits up to 90 s for what is under way
        if code == 3:
            raise AirflowSkipException("another run is at it")
        if code not in (0, 5):
            raise AirflowFailException(f"exit code {code}")  # never tried again: that would hide it
        if code == 5:
            raise RuntimeError("interrupted, to be run again")

    night()


emolib_nightly()
