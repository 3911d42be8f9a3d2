"""Dead letters from another process: through the socket of a stage that runs, and directly where none does."""

import asyncio
import base64
import errno
import json
import os
import stat
from pathlib import Path

import pytest

from enricher.control import SOCKET, Control, connected
from enricher.errors import EnricherError
from enricher.storage import Batch, Store

SIZE = 16 << 20


def unexpected(problem):
    pytest.fail(problem)


async def with_letters(directory, number):
    store = Store(directory, max_size_bytes=SIZE)
    await store.open()
    for row in await store.enqueue(
        [Batch("otlp", "traces", b"body %d" % n, n) for n in range(1, number + 1)], lease_seconds=60
    ):
        await store.bury(row, "not mine", 3)
    return store


class Serving:
    """A store whose owner listens."""

    def __init__(self, directory):
        self.directory, self.queued = directory, 0

    async def __aenter__(self):
        self.store = await with_letters(self.directory, 3)
        self.control = Control(self.store, self.directory, self._count)
        await self.control.start()
        return self

    async def __aexit__(self, *_):
        await self.control.shutdown()
        await self.store.close()

    def _count(self):
        self.queued += 1


async def use(directory, counts):
    """List, show, send one again and delete another, and check what is left."""
    async with connected(directory, SIZE, unexpected) as ask:
        listed = await ask({"do": "list", "after": 0, "limit": 2})
        first, second = (letter["id"] for letter in listed["letters"])
        assert (listed["dead"]["rows"], listed["letters"][0]["reason"]) == (3, "not mine")
        shown = await ask({"do": "show", "id": second})
        assert (base64.b64decode(shown["body"]), shown["letter"]["items"]) == (b"body 2", 2)
        assert (await ask({"do": "show", "id": 99}))["letter"] is None
        assert (await ask({"do": "resend", "ids": [first]}))["done"] == 1
        assert (await ask({"do": "drop", "ids": [second, 99]}))["done"] == 1
        left = await ask({"do": "list", "after": 0, "limit": 10})
        assert (left["queued"]["rows"], left["dead"]["rows"]) == counts


async def test_beside_a_running_stage_it_is_asked_and_its_drain_is_woken(tmp_path):
    async with Serving(tmp_path) as serving:
        await use(tmp_path, (1, 1))

        assert serving.queued == 1


async def test_without_a_stage_the_store_is_opened_and_closed_again(tmp_path):
    await (await with_letters(tmp_path, 3)).close()
    await use(tmp_path, (1, 1))

    store = Store(tmp_path, max_size_bytes=SIZE)
    assert (await store.open()).was_clean
    await store.close()


async def test_the_socket_of_a_stage_that_was_killed_is_nobodys(tmp_path):
    async with Serving(tmp_path) as serving:
        os.link(tmp_path / SOCKET, tmp_path / "kept")
        await serving.control.shutdown()
        (tmp_path / "kept").rename(tmp_path / SOCKET)
        await serving.control.start()
        await use(tmp_path, (1, 1))


async def test_f26_a_volume_that_became_read_only_does_not_break_a_stop_off(tmp_path, monkeypatch):
    def unlink(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    async with Serving(tmp_path) as serving:
        with monkeypatch.context() as faulty:
            faulty.setattr(Path, "unlink", unlink)
            await serving.control.shutdown()

        assert (tmp_path / SOCKET).exists()


async def test_only_the_user_of_the_stage_reaches_the_socket(tmp_path):
    async with Serving(tmp_path):
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600


async def test_a_directory_without_a_store_is_told_and_left_alone(tmp_path):
    with pytest.raises(EnricherError, match="holds no store"):
        async with connected(tmp_path, SIZE, unexpected):
            pass

    assert list(tmp_path.iterdir()) == []


async def test_a_directory_that_cannot_be_looked_into_is_told(tmp_path):
    # As one without permission is, which the superuser never meets.
    with pytest.raises(EnricherError, match="cannot be looked into: File name too long; ask as the stage's user"):
        async with connected(tmp_path / ("long" * 100), SIZE, unexpected):
            pass


async def test_a_directory_deeper_than_a_sockets_path_may_be_long(tmp_path):
    deep = tmp_path.joinpath(*["deep" * 10] * 4)
    deep.mkdir(parents=True)
    async with Serving(deep):
        await use(deep, (1, 1))


@pytest.mark.parametrize(
    "question", [b"", b"7", b"[]", b'{"do": "burn"}', b'{"do": "show"}', b'{"do": "drop", "ids": "x"}', b"\xff" * 9]
)
async def test_a_question_that_is_none_is_answered_with_an_error_and_harms_nothing(tmp_path, question):
    async with Serving(tmp_path) as serving:
        reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
        writer.write(question + b"\n")
        reply = json.loads(await reader.read())
        writer.close()

        assert "not a question" in reply["error"]
        assert (await serving.store.counts()).dead.rows == 3


async def test_what_the_store_says_is_passed_on(tmp_path):
    async with Serving(tmp_path) as serving:
        await serving.store.close()
        async with connected(tmp_path, SIZE, unexpected) as ask:
            with pytest.raises(EnricherError, match="the store is closed"):
                await ask({"do": "list", "after": 0, "limit": 2})
