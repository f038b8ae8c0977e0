"""Secrets are masked by name, by value and by shape; what is no secret stays as it is."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.masking import MASK, MaskingStream, is_secret_name, masked_text, masked_variables, secret_values

SECRETS = {
    "HF_TOKEN": "hf_planted0123456789abcdefghij",
    "AWS_SECRET_ACCESS_KEY": "Planted/wJalrXUtnFEMI+K7MDENG=",
    "DB_PASSWORD": "planted-Correct-Horse-1",
    "SITE_JWT": "planted.jwt.12",
    "https_proxy": "http://user:planted-proxy-9@proxy:3128",
}
VALUES = [*(v for k, v in SECRETS.items() if k != "https_proxy"), "planted-proxy-9"]


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "API_KEY", "APIKEY", "db_password", "SSH_PRIVATE_KEY", "X_AUTH", "MYSQL_PWD"]
)
def test_a_name_of_a_secret_is_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "KEYBOARD", "MONKEY", "GIT_AUTHOR_NAME", "NCCL_DEBUG"]
)
def test_a_name_that_only_looks_like_one_is_not(name: str) -> None:
    assert not is_secret_name(name)


def test_every_value_is_masked_wherever_it_stands() -> None:
    known = secret_values(SECRETS)
    for value in VALUES:
        for text in (value, f"cannot reach {value}: refused", json.dumps({"text": value}), f"--password={value}", f"'{value}'\n{value}"):
            assert "lanted" not in masked_text(text, known)
    assert "planted" not in str(masked_variables(SECRETS))
    assert masked_variables(SECRETS)["https_proxy"] == f"http://{MASK}@proxy:3128"


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAIOSFODNN7EXAMPLE:planted@bucket/x",
        "https://planted@host/",
        "Authorization: Bearer planted.abcdef",
        "GET /x?X-Amz-Signature=planted&a=1",
        "ghp_planted0123456789012345678901234567",
        "MY_TOKEN=planted1",
        "-----BEGIN RSA PRIVATE KEY-----\nplanted\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nplanted and cut off",
        "eyJhbGciOiJplanted.eyJzdWIiOiIx.sig",
    ],
)
def test_a_secret_shape_is_masked_without_knowing_it(text: str) -> None:
    assert "planted" not in masked_text(text, ())
    assert MASK in masked_text(text, ())


@pytest.mark.parametrize(
    "text",
    [
        "tokens_per_s=3908",
        '{"tokens_per_s": 3908.5}',
        "s3://bucket/sweep/point",
        "https://host/a@b",
        "train.seed=0",
        "max_tokens: 5",
        "a@b.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked_text(text, ()) == text


def test_words_numbers_and_files_are_not_taken_out_of_results() -> None:
    plain = {"A_PASSWORD": "measured", "B_SECRET": "12345678", "C_KEY": "1.5e-10", "D_TOKEN": "short", "E_CREDENTIALS": "/etc/hostname"}
    assert secret_values(plain) == ()
    assert set(masked_variables(plain).values()) == {MASK}


def test_a_key_of_a_mapping_is_never_masked_so_that_results_stay_readable() -> None:
    secret = "tokens_per_s2"
    assert json.loads(masked_text(json.dumps({secret: secret}), (secret,))) == {secret: MASK}


@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.floats(allow_nan=False), max_size=4),
    st.text(min_size=8, max_size=30),
)
def test_masked_json_is_json_with_the_same_keys(plain: dict[str, object], secret: str) -> None:
    known = secret_values({"A_TOKEN": secret})
    assert json.loads(masked_text(json.dumps(plain, indent=1), known)).keys() == plain.keys()


@given(st.lists(st.text(alphabet="ab\n", max_size=6)), st.integers(0, 30))
def test_a_stream_writes_what_it_was_given_in_order(pieces: list[str], cut: int) -> None:
    target = io.StringIO()
    stream = MaskingStream(target)
    for piece in pieces[:cut]:
        stream.write(piece)
    stream.flush()
    assert target.getvalue() == "".join(pieces[:cut])


def test_a_secret_written_in_pieces_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "planted-in-Pieces")
    target = io.StringIO()
    stream = MaskingStream(target)
    for piece in ("a planted", "-in-", "Pieces b\n", "next"):
        stream.write(piece)
    stream.flush()
    assert target.getvalue() == f"a {MASK} b\nnext"
    assert not stream.isatty()
