"""All questions, in the order of the table."""

from benchmarks.question import Question
from benchmarks.questions import (
    data_4m,
    data_16k,
    download_1g,
    gzip_frames,
    hive_hooks,
    hive_plain,
    hive_startup,
    json_beside,
    meta_small,
    meta_wide_cold,
    typed_handler,
)

QUESTIONS: tuple[Question, ...] = (
    meta_small.QUESTION,
    meta_wide_cold.QUESTION,
    data_16k.QUESTION,
    data_4m.QUESTION,
    download_1g.QUESTION,
    json_beside.QUESTION,
    gzip_frames.QUESTION,
    hive_plain.QUESTION,
    hive_hooks.QUESTION,
    hive_hooks.AWAITING,
    typed_handler.QUESTION,
    hive_startup.QUESTION,
)
