"""One block of a stored run, scored where `emolib.isolation` has work done."""

from __future__ import annotations

from emolib.archive.blocks import score_block
from emolib.archive.ledger import Run
from emolib.archive.outcomes import BlockResult
from emolib.archive.plan import PlannedRecording
from emolib.errors import Code
from emolib.isolation import Attempt, Watch


def score_watched(pred: str, run_id: str, block: int, *, attempt: Attempt, watch: Watch) -> BlockResult:
    """Score a block like `emolib.archive.blocks.score_block`: what `emolib.isolation.isolated` takes.

    Verdicts are stored with the run, so that whoever continues it does not meet the recordings anew; but not
    `internal`, which may be the machine's fault. What is optional is a candidate that listens in.

    Raises
    ------
    EmolibError
        What `score_block` raises.
    """
    run = Run.open(pred, run_id)
    limits, listens_in = run.config.limits, attempt.extras and run.config.shadow is not None
    watch.end(extras=listens_in)
    watch.limit_memory(limits.recording_memory)
    if lasting := {name: each for name, each in attempt.verdicts.items() if each.code is not Code.INTERNAL}:
        run.judge(block, lasting)

    def begins(recording: PlannedRecording | None) -> None:
        if recording is None:
            watch.end(extras=listens_in)
        else:
            watch.begin(recording.recording_id, limits.seconds_for(recording.estimated_s), extras=listens_in)

    return score_block(
        pred,
        run_id,
        block,
        verdicts=attempt.verdicts,
        alone=attempt.alone,
        begins=begins,
        listens_in=attempt.extras,
        shares_batches=not attempt.careful,
    )
