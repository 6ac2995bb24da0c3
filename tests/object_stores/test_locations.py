"""URLs that are served, and those that are not."""

import pytest

from asgihive.cli import main
from asgihive.object_stores.locations import is_url, parse_url
from asgihive.service import H5App
from asgihive.settings import H5Settings


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "az://container/a"),
        ("https://example.org:8443/data", "https://example.org:8443/data"),
        ("S3://bucket/a", "s3://bucket/a"),
    ],
)
def test_a_prefix_is_kept_in_one_form(url: str, kept: str) -> None:
    assert is_url(url)
    assert parse_url(url) == kept


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://user:word@example.org/data", "environment"),
        ("s3://key:word@bucket/data", "environment"),
        ("https://word@example.org/data", "environment"),
        ("https://example.org/data?sig=word", "query"),
        ("https://example.org/data#word", "query"),
        ("s3://bucket/a/../word", "prefix"),
        ("s3:///word", "bucket"),
        ("ftp://example.org/word", "s3://"),
        ("file:///word", "s3://"),
        ("https://[word/", "is accepted"),
    ],
)
def test_other_urls_are_refused_without_being_shown(
    url: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_url(url)
    assert "word" not in str(caught.value)
    with pytest.raises(ValueError, match=said):
        H5App(url)
    with pytest.raises(SystemExit) as ended:
        main(["serve", url])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "word" not in told


@pytest.mark.parametrize("path", ["/data", "data", "./s3:", "C:\\data", "s3:/bucket"])
def test_a_directory_is_no_url(path: str) -> None:
    assert not is_url(path)


def test_processes_for_readers_are_refused() -> None:
    with pytest.raises(ValueError, match="isolation"):
        H5App("s3://bucket/prefix", H5Settings(isolation="process"))
