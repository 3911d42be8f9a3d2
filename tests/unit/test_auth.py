"""Credentials on both sides: who gets in, what is sent, and what is never shown."""

import base64
import hmac

import pytest
from structlog.testing import capture_logs

from enricher.config.access import ClientAuthConfig, ServerAuthConfig
from enricher.credentials import MAX_SECRETS_BYTES
from enricher.deliver.auth import authorization
from enricher.errors import EnricherError
from enricher.receive import auth
from enricher.receive.auth import Authenticator

CANARY = "canary-4f1d"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def server(clock=None, **kind):
    return Authenticator(ServerAuthConfig(**kind), "a.auth", clock=clock or Clock())


def header(text):
    return {"authorization": text}


def basic(user):
    return header("Basic " + base64.b64encode(user.encode()).decode())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "secrets"


class TestBearer:
    @pytest.mark.parametrize("sent", ["Bearer one", "bearer one", "BEARER  one", "Bearer one "])
    def test_the_token_lets_in_and_its_scheme_is_of_any_case(self, sent):
        assert server(bearer={"token": "one"}).authenticate(header(sent))

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            header(""),
            header("Bearer"),
            header("Bearer "),
            header("one"),
            header("Basic one"),
            header("Bearer two"),
            header("Bearer one two"),
            header("Bearer on"),
            header("Bearer one\u00e9"),
            header("Bearer \udcff\udcfe"),
            header("Bearer " + "x" * 20_000),
            {"x-authorization": "Bearer one"},
        ],
        ids=repr,
    )
    def test_f42_everything_else_is_kept_out(self, headers):
        assert not server(bearer={"token": "one"}).authenticate(headers)

    def test_another_scheme_may_be_set(self):
        keeper = server(bearer={"token": "one", "scheme": "Token"})

        assert keeper.authenticate(header("token one"))
        assert not keeper.authenticate(header("Bearer one"))

    def test_a_file_holds_several_one_a_line(self, file):
        file.write_bytes(b"old\r\n\n  new  \n" + "gr\u00fcn\n".encode())
        keeper = server(bearer={"filename": file})

        for token in ("old", "new", "gr\u00fcn"):
            assert keeper.authenticate(header(f"Bearer {token}"))
        assert not keeper.authenticate(header("Bearer "))

    def test_a10_a_non_ascii_token_that_arrives_as_raw_bytes_is_compared_as_bytes(self, file):
        file.write_bytes(b"a\xff\n")

        assert server(bearer={"filename": file}).authenticate(header(b"Bearer a\xff".decode(errors="surrogateescape")))

    def test_a10_every_token_is_compared_in_constant_time_whichever_was_sent(self, file, monkeypatch):
        compared = []
        really = hmac.compare_digest

        def compare(given, known):
            compared.append((len(given), len(known)))
            return really(given, known)

        file.write_text("one\ntwo-is-longer\nthree\n")
        keeper = server(bearer={"filename": file})
        monkeypatch.setattr(auth.hmac, "compare_digest", compare)
        for token in ("one", "three", "none-of-them", ""):
            keeper.authenticate(header(f"Bearer {token}"))

        assert compared == [(32, 32)] * 12

    def test_a_rotated_file_is_followed(self, file):
        clock = Clock()
        file.write_text("old")
        keeper = server(clock, bearer={"filename": file})
        file.write_text("new one")
        assert keeper.authenticate(header("Bearer old"))
        clock.now = auth.LOOK_SECONDS

        assert not keeper.authenticate(header("Bearer old"))

    def test_an_emptied_file_does_not_open_the_door(self, file):
        clock = Clock()
        file.write_text("old")
        keeper = server(clock, bearer={"filename": file})
        file.write_text("")
        clock.now = auth.LOOK_SECONDS
        with capture_logs():
            assert not keeper.authenticate(header("Bearer "))
            assert keeper.authenticate(header("Bearer old"))

    @pytest.mark.parametrize("content", [None, b"", b" \n\n", b"x" * (MAX_SECRETS_BYTES + 1)])
    def test_a_file_that_cannot_be_used_is_named_at_start(self, file, content):
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(EnricherError, match=rf"a\.auth\.bearer\.filename: {file}"):
            server(bearer={"filename": file})


class TestBasic:
    def test_users_of_the_configuration(self):
        keeper = server(basic={"htpasswd": {"inline": "\n ann:pass:word \nbob:gr\u00fcn\n"}})

        assert keeper.authenticate(basic("ann:pass:word"))
        assert keeper.authenticate(basic("bob:gr\u00fcn"))
        for other in ("ann:pass", "ann:", ":", "bob:pass:word", ""):
            assert not keeper.authenticate(basic(other))
        assert not keeper.authenticate(header("Bearer " + base64.b64encode(b"ann:pass:word").decode()))
        assert not keeper.authenticate(header("Basic ***"))

    def test_users_of_a_file(self, file):
        file.write_text("ann:word\n")

        assert server(basic={"htpasswd": {"file": file}}).authenticate(basic("ann:word"))

    @pytest.mark.parametrize("line", ["ann", "ann:", f":{CANARY}", f"ann:$2y$05${CANARY}", f"ann:{{SHA}}{CANARY}"])
    def test_a_line_that_is_none_is_named_by_number_alone(self, line):
        with pytest.raises(EnricherError, match=r"a\.auth\.basic\.htpasswd: line 2 ") as caught:
            server(basic={"htpasswd": {"inline": f"bob:word\n{line}"}})

        assert CANARY not in str(caught.value)


def test_refusals_are_counted_and_told_at_most_once_a_minute():
    clock = Clock()
    keeper = server(clock, bearer={"token": CANARY})
    with capture_logs() as logs:
        for now in (0.0, 1.0, 59.0, 60.0):
            clock.now = now
            keeper.authenticate(header("Bearer guessed"))

    assert [line["refused"] for line in logs] == [1, 4]
    assert keeper.refused == 4
    assert not any(word in str(logs) + repr(vars(keeper)) for word in (CANARY, "guessed"))


class TestClient:
    def test_what_is_sent_is_what_a_server_of_the_same_file_takes(self, file):
        file.write_text("new\nold\n")
        sent = authorization(ClientAuthConfig(bearer={"filename": file}), "b.auth").get()

        assert sent == "Bearer new"
        assert server(bearer={"filename": file}).authenticate(header(sent))

    def test_basic(self, file):
        file.write_text("pass:word\n")
        from_file = authorization(ClientAuthConfig(basic={"username": "\u00e4nn", "password_file": file}), "b").get()
        written = authorization(ClientAuthConfig(basic={"username": "\u00e4nn", "password": "pass:word"}), "b").get()

        assert from_file == written == basic("\u00e4nn:pass:word")["authorization"]

    @pytest.mark.parametrize("content", ["", f"{CANARY}\u00e9\n"])
    def test_a11_a_file_that_cannot_be_sent_is_named_and_not_shown(self, file, content):
        file.write_text(content)
        rotating = authorization(ClientAuthConfig(bearer={"filename": file}), "b.auth")

        with pytest.raises(EnricherError, match=rf"b\.auth\.bearer\.filename: .*{file.name}") as caught:
            rotating.get()
        assert CANARY not in str(caught.value)
