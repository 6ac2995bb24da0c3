"""All questions, in the order of the table."""

from benchmarks.question import Question
from benchmarks.questions import (
    data_4m,
    data_16k,
    download_1g,
    gzip_frames,
    json_beside,
    meta_small,
    meta_wide_cold,
)

QUESTIONS: tuple[Question, ...] = (
    meta_small.QUESTION,
    meta_wide_cold.QUESTION,
    data_16k.QUESTION,
    data_4m.QUESTION,
    download_1g.QUESTION,
    json_beside.QUESTION,
    gzip_frames.QUESTION,
)
