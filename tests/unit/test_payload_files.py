"""Payload files: what changes is read, once; hostile names and contents are named and cost nothing else."""

import asyncio
import gzip
import os
import socket
import threading
from pathlib import Path

import pytest
import structlog
import zstandard

from enricher.errors import CaptureError
from enricher.evidence import files
from enricher.payload_files import PayloadFiles, component, read_once, watched
from enricher.payload_files.names import Pattern, shown
from enricher.payload_files.watched import Watched
from tests.support.build import a_run_payload, as_json


def a_run(number):
    return as_json(a_run_payload(number=number, thread=number))


def lines(*numbers):
    return "".join(a_run(number) + "\n" for number in numbers)


def runs_of(items):
    """Return the numbers of the runs that are said, in their order."""
    return [int(run.run_id[4:]) for each in items if not isinstance(each, CaptureError) for run in each.said.runs]


def errors_of(items):
    return [str(each) for each in items if isinstance(each, CaptureError)]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, so that names in errors are short."""
    path = tmp_path / "folder"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def look(clock, folder):  # noqa: ARG001 - the directory that is watched
    """Return what a new look at the given patterns gives; the same patterns are the same watch."""
    watches = {}

    def look(*patterns):
        watch = watches.setdefault(patterns or ("*",), Watched(patterns or ("*",), clock))
        clock.now += 1
        return [each for each in watch.look() if each is not None]

    return look


def once(*patterns):
    return list(read_once(patterns or ("*",)))


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())


def append(path, text):
    with Path(path).open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


# ---- changes


def test_a_file_is_read_once_while_it_stays_as_it_is(look):
    write("a.json", a_run(1))

    assert [runs_of(look()) for _ in range(3)] == [[1], [], []]


def test_new_and_changed_files_are_read(look):
    write("a.json", a_run(1))
    look()
    write("b.json", a_run(2))
    write("a.json", a_run(3) + " ")

    assert sorted(runs_of(look())) == [2, 3]


def test_a_file_that_is_replaced_by_a_rename_is_read(look):
    write("a.json", a_run(1))
    look()
    write(".new", a_run(2))
    Path(".new").replace("a.json")

    assert runs_of(look()) == [2]


def test_a_copy_that_keeps_size_and_time_is_read(look):
    """The time of the change cannot be set, as `cp -p` sets the time of the contents."""
    write("a.json", a_run(1))
    status = Path("a.json").stat()
    look()
    write("a.json", a_run(2))
    os.utime("a.json", ns=(status.st_atime_ns, status.st_mtime_ns))

    assert runs_of(look()) == [2]


def test_files_that_go_are_forgotten_and_read_again_when_they_come_back(look):
    write("a.json", a_run(1))
    look()
    Path("a.json").rename("../kept")
    assert look() == []
    Path("../kept").rename("a.json")

    assert runs_of(look()) == [1]


def test_several_names_of_one_file_are_read_once(look):
    write("a.json", a_run(1))
    Path("b.json").hardlink_to("a.json")
    Path("c.json").symlink_to("a.json")

    assert runs_of(look("*.json", "a.json", "**")) == [1]


def test_lines_are_read_on_from_the_last_complete_one(look, monkeypatch):
    read = []
    monkeypatch.setattr(files, "lines", lambda data, _, at: read.append((at, data.count(b"\n"))) or iter(()))
    write("log", lines(1, 2))
    look()
    append("log", lines(3))
    look()

    assert read == [(0, 2), (2 * len(lines(1)), 1)]


def test_the_end_of_a_half_written_line_is_waited_for(look):
    whole = lines(1, 2, 3)
    for end in (len(lines(1)) + 9, 2 * len(lines(1)) - 1, 2 * len(lines(1)), len(whole) - 3):
        write("log", whole[:end])
        found = look()
        assert errors_of(found) == []
    append("log", whole[-3:])

    assert runs_of(look()) == [3]


def test_a_last_line_without_an_end_is_read_and_not_again(look):
    write("log", lines(1) + a_run(2))
    assert runs_of(look()) == [1, 2]
    append("log", "\n" + lines(3))

    assert runs_of(look()) == [3]


def test_lines_longer_than_a_piece_are_read(look, monkeypatch):
    monkeypatch.setattr(files, "HEAD", len(lines(1)))
    long = as_json({"run": a_run_payload(number=2), "filler": "x" * 10_000})
    write("log", lines(1) + long + "\n" + lines(3))

    assert runs_of(look()) == [1, 2, 3]


def test_a_log_that_is_cut_off_and_begins_anew_is_read_from_its_beginning(look):
    write("log", lines(1, 2))
    look()
    write("log", lines(3))

    assert runs_of(look()) == [3]


def test_a_log_that_is_written_anew_and_longer_is_not_taken_for_one_that_grew(look):
    write("log", lines(1))
    look()
    write("log", lines(2, 3))

    assert runs_of(look()) == [2, 3]


def test_a_rotated_log_is_not_read_again(look):
    write("log", lines(1))
    look("log*")
    Path("log").rename("log.1")
    write("log", lines(2))

    assert runs_of(look("log*")) == [2]


def test_a_log_becomes_a_document(look):
    write("log", lines(1, 2))
    look()
    write("log", "[\n" + a_run(3) + "]")

    assert runs_of(look()) == [3]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_files_are_read_whatever_their_name(look, compress):
    write("a", compress(a_run(1).encode()))
    write("b.gz", compress(lines(2, 3).encode()))

    assert sorted(runs_of(look())) == [1, 2, 3]


def test_a_document_that_grows_is_not_read_at_every_look(look, clock, monkeypatch):
    """Each reading of it takes longer than the one before."""
    monkeypatch.setattr(files, "read", lambda *_: [setattr(clock, "now", clock.now + 5)] and iter(()))
    write("a.json", "[")
    began = clock.now
    for _ in range(100):
        append("a.json", "1,")
        look()

    assert clock.now - began < 100 + 5 * (100 / 50 + 2)


# ---- problems


def test_a_problem_is_told_once_a_change(look):
    write("a.json", '{"broken')
    assert look() == []
    assert errors_of(look()) == ["a.json: byte 8: JSON that is cut off or damaged"]
    assert [look(), look()] == [[], []]
    write("a.json", '{"broken again')

    assert [len(look()), len(look()), len(look())] == [0, 1, 0]


def test_a_file_that_is_being_written_is_no_problem(look):
    whole = a_run(1)
    for end in range(1, len(whole), 40):
        write("a.json", whole[:end])
        assert look() == []
    write("a.json", whole)

    assert runs_of(look()) == [1]
    assert look() == []


def test_of_many_bad_parts_the_first_is_told(look):
    write("log", lines(1) + (a_run(2)[:-1] + "\n") * 5)
    look()

    assert errors_of(look()) == [f"log: byte {len(lines(1)) + len(a_run(2)) - 1}: JSON that is cut off or damaged"]


def test_a_file_without_permission_is_told_once_and_read_when_it_may_be(look, monkeypatch, clock):
    write("a.json", a_run(1))
    opened = os.open
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    look()
    assert errors_of(look()) == ["a.json: cannot be read: Permission denied"]
    clock.now += watched.RETRY_SECONDS
    assert [look(), look()] == [[], []]
    monkeypatch.setattr(os, "open", opened)
    clock.now += watched.RETRY_SECONDS

    assert runs_of(look()) == [1]


def test_a_problem_that_several_patterns_meet_is_told_once(folder):  # noqa: ARG001
    Path("d").mkdir()

    assert len(once("d", "*", "a.json", "./a.json", "b*", "b*")) == 3


def test_names_without_a_file_are_told_once_until_it_comes(look):
    for pattern in ("a.json", "b*.json", "no/such/*"):
        assert [errors_of(look(pattern)) for _ in range(3)][::2] == [[], []]
    write("b1.json", a_run(1))

    assert runs_of(look("b*.json")) == [1]
    Path("b1.json").unlink()
    assert errors_of([*look("b*.json"), *look("b*.json"), *look("b*.json")]) == ["b*.json: matches nothing"]


def test_a_file_that_vanishes_before_it_is_opened_is_no_matter(look, monkeypatch):
    write("a.json", a_run(1))
    write("b.json", a_run(2))
    opened = os.open

    def vanish(path, *rest):
        if path.endswith("a.json"):
            Path("a.json").unlink()
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", vanish)

    assert runs_of(look()) == [2]
    assert look() == []


@pytest.mark.parametrize("anew", [a_run(2), " " * 200_000 + a_run(2)], ids=["shorter", "longer"])
def test_a_document_that_changes_while_it_is_read_says_nothing_until_it_stands_still(look, monkeypatch, anew):
    """Half of the old and half of the new may well be JSON, and of no run."""
    write("a.json", "[" + " " * 100_000 + a_run(1) + "]")
    inflated = watched.is_compressed
    monkeypatch.setattr(watched, "is_compressed", lambda head: write("a.json", anew) or inflated(head))
    assert look() == []
    monkeypatch.setattr(watched, "is_compressed", inflated)

    assert runs_of(look()) == [2]


def test_an_error_of_this_program_costs_one_file(look, monkeypatch):
    def fail(data, name):
        if name == "a.json":
            raise RuntimeError("with payload text")
        return read(data, name)

    read = files.read
    monkeypatch.setattr(files, "read", fail)
    write("a.json", a_run(1))
    write("b.json", a_run(2))

    assert runs_of(look()) == [2]
    assert errors_of(look()) == ["a.json: cannot be read for an error of this program: RuntimeError"]


# ---- read once


def test_read_once_reads_all_and_names_each_problem_at_once(folder):  # noqa: ARG001
    write("a.json", a_run(1))
    write("b.json", "broken")
    write("c.jsonl", lines(2) + a_run(3)[:-1] + "\n" + lines(4) + '{"cut')

    found = once("*", "d.json", "e*")
    assert runs_of(found) == [1, 2, 4]
    assert [each.partition(":")[0] for each in errors_of(found)] == ["b.json", "c.jsonl", "c.jsonl", "d.json", "e*"]


def test_read_once_twice_gives_the_same(folder):  # noqa: ARG001
    write("a.json", a_run(1))

    assert runs_of(once()) == runs_of(once()) == [1]


def test_read_once_names_a_document_that_changes_before_it_is_read_to_its_end(folder, monkeypatch):  # noqa: ARG001
    write("a.json", a_run(1))
    inflated = watched.is_compressed
    monkeypatch.setattr(watched, "is_compressed", lambda head: append("a.json", " ") or inflated(head))

    assert [str(each) for each in once("a.json")] == ["a.json: was changed, replaced or removed while it was read"]


@pytest.mark.parametrize("change", ["replaced", "removed", "written"])
def test_read_once_names_a_file_that_changes_while_it_is_read(folder, change, monkeypatch):  # noqa: ARG001
    write("a.json", a_run(1))
    read = files.read

    def changing(data, name):
        if change == "replaced":
            write("b", a_run(2))
            Path("b").replace("a.json")
        elif change == "removed":
            Path("a.json").unlink()
        else:
            append("a.json", " ")
        return read(data, name)

    monkeypatch.setattr(files, "read", changing)

    found = once("a.json")
    assert runs_of(found) == [1]
    assert errors_of(found) == ["a.json: was changed, replaced or removed while it was read"]


def test_read_once_of_a_log_that_grows_meanwhile_gives_what_it_held(folder, monkeypatch):  # noqa: ARG001
    write("log", lines(1))
    read = files.lines

    def growing(data, name, at):
        append("log", lines(2))
        return read(data, name, at)

    monkeypatch.setattr(files, "lines", growing)

    assert (runs_of(found := once("log")), errors_of(found)) == ([1], [])


# ---- hostile files


def test_a12_what_is_no_regular_file_is_named_and_not_opened(look, monkeypatch):
    os.mkfifo("pipe")
    Path("directory").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    Path("device").symlink_to("/dev/zero")
    write("a.json", a_run(1))
    opened = []
    monkeypatch.setattr(os, "open", lambda path, *rest, real=os.open: opened.append(path) or real(path, *rest))

    assert runs_of(look()) == [1]
    assert sorted(errors_of(look())) == [
        "device: leads out of .; add a pattern for the place where it leads",
        "directory: is no regular file; add /* to read the files in it",
        "pipe: is no regular file",
        "socket: is no regular file",
    ]
    assert [Path(each).name for each in opened] == ["a.json"]
    # Files come and go in a directory; that is no change of the problem.
    write("directory/b", "")
    assert [look(), look()] == [[], []]
    assert errors_of(once("directory")) == ["directory: is no regular file; add /* to read the files in it"]


def test_a12_a_pipe_that_took_the_files_place_does_not_block(look, monkeypatch):
    write("a.json", a_run(1))

    def swap(path, *rest, real=os.open):
        Path(path).unlink()
        os.mkfifo(path)
        return real(path, *rest)

    monkeypatch.setattr(os, "open", swap)
    look()
    monkeypatch.undo()


def test_a12_a_link_that_took_the_files_place_is_not_followed(folder, monkeypatch):
    write("../secret", a_run(1))
    write("a.json", a_run(2))

    def swap(path, *rest, real=os.open):
        Path(path).unlink()
        Path(path).symlink_to("../secret")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", swap)
    found = list(read_once([f"{folder}/*"]))

    assert runs_of(found) == []
    assert len(errors_of(found)) == 1


def test_a12_links_are_followed_inside_of_the_patterns_root_only(look):
    write("../outside/a.json", a_run(1))
    write("data/..2024/b.json", a_run(2))
    Path("data/..data").symlink_to("..2024")
    Path("data/b.json").symlink_to("..data/b.json")  # as Kubernetes mounts its volumes
    Path("data/out.json").symlink_to("../../outside/a.json")
    Path("data/dangling.json").symlink_to("nowhere")
    Path("data/loop.json").symlink_to("loop.json")
    Path("data/directory").symlink_to("../../outside")

    assert runs_of(look("data/*.json")) == [2]
    assert sorted(errors_of(look("data/*.json"))) == [
        "data/dangling.json: cannot be read: No such file or directory",
        "data/loop.json: cannot be read: Too many levels of symbolic links",
        "data/out.json: leads out of data; add a pattern for the place where it leads",
    ]
    assert runs_of(look("data/directory/*")) == [1], "the operator wrote the link's own name"
    assert runs_of(look("data/**/a.json")) == []
    assert runs_of(look("d*/directory/a.json")) == []


def test_a12_a_file_named_by_the_operator_may_be_a_link_beside_its_target_only(look):
    write("releases/1.json", a_run(1))
    Path("current.json").symlink_to("releases/1.json")
    Path("releases/up.json").symlink_to("../current.json")

    assert runs_of(look("current.json")) == [1]
    assert runs_of(look("releases/up.json")) == [1], "it leads back into the directory"
    write("../secret", a_run(2))
    Path("out.json").symlink_to("../secret")
    assert runs_of(look("out.json")) == []
    assert errors_of(look("out.json")) == ["out.json: leads out of .; add a pattern for the place where it leads"]


def test_a_file_that_a_link_leads_out_to_is_read_where_another_pattern_names_it(look):
    write("../outside/a.json", a_run(1))
    Path("a.json").symlink_to("../outside/a.json")

    assert runs_of(look("*", "../outside/*")) == [1]


@pytest.mark.parametrize(
    "name", ["a\nERROR forged", "\x1b[31mred", "\udcff\udcfe.json", "\u202egnp.json", " ", "x" * 250]
)
def test_a12_hostile_names_are_shown_so_that_they_do_no_harm(look, name):
    Path(name).write_text(a_run(1))
    Path(f"{name[:240]}-").write_text("broken")

    (evidence,) = look()
    (problem,) = look()
    for text in (evidence.place.where, str(problem)):
        assert text.isprintable()
        assert len(text) < 400
        text.encode()


@pytest.mark.parametrize(
    "path", ["\0", "a/\0*", "\0/*", "x" * 300, "x" * 300 + "/*", "/" + "a/" * 3000 + "*", "", "/", ".", ".."]
)
def test_patterns_of_any_kind_are_named_and_raise_nothing(folder, path):  # noqa: ARG001
    assert len(errors_of(once(path))) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 10_000,
        b"[" * 2_000_000,
        b'{"a":' * 200_000,
        b"\xff" * 10_000,
        b"\x1f\x8b" + b"\0" * 100,
        gzip.compress(b"[" * 100_000)[:-10],
        b"\x28\xb5\x2f\xfd\xff\xff",
        b"interactions:\n- " + b"[" * 100_000,
        b"\n" * 10_000 + b"x",
    ],
)
def test_f35_hostile_contents_are_named_once(folder, data):  # noqa: ARG001
    write("a.json", data)

    assert len(errors_of(once("a.json"))) == 1


def test_a1_a_bomb_is_skipped_and_costs_no_more_than_the_limit(folder, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1 << 20)
    write("a.gz", gzip.compress(bytes(1 << 24)))
    write("b.zst", zstandard.compress(b"[" * (1 << 24)))
    write("c.json", b"[" * (1 << 21))
    write("d.json", a_run(1))

    found = once()
    assert runs_of(found) == [1]
    assert errors_of(found) == [
        f"{name}: a file of more than 1 MiB, inflated; it is skipped" for name in ("a.gz", "b.zst", "c.json")
    ]


def test_a_log_of_lines_may_be_larger_than_the_limit_but_no_line(look, monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1 << 16)
    monkeypatch.setattr(files, "HEAD", 1 << 14)
    forged = as_json({"filler": "x" * (1 << 18)})[:-1] + lines(9)
    write("log", lines(1) + forged + lines(*range(2, 300)))

    found = look()
    assert runs_of(found) == [1, *range(2, 300)]
    assert errors_of(look()) == [f"log: byte {len(lines(1))}: a line of more than 0 MiB, inflated; it is skipped"]


def test_a_line_that_is_too_long_and_not_yet_ended_is_skipped_to_its_end(look, monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1 << 16)
    monkeypatch.setattr(files, "HEAD", 1 << 14)
    write("log", lines(1) + '{"filler": "' + "x" * (1 << 17))
    assert runs_of(look()) == [1]
    assert len(errors_of(look())) == 1
    append("log", "x" * 100)
    assert [look(), look()] == [[], []]
    append("log", lines(8) + lines(2))

    assert runs_of(look()) == [2]


# ---- patterns


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.json", ["a.json"]),
        ("?.json", ["a.json"]),
        ("[ab].json", ["a.json"]),
        ("./a.json", ["a.json"]),
        ("*/*.json", ["x/b.json"]),
        ("x/../x/*.json", ["x/../x/b.json"]),
        ("**", ["a.json", "x/b.json", "x/c.txt", "x/y/d.json", "x/y/x/g.json"]),
        ("**/*", ["a.json", "x/b.json", "x/c.txt", "x/y/d.json", "x/y/x/g.json"]),
        ("**/**/*.json", ["a.json", "x/b.json", "x/y/d.json", "x/y/x/g.json"]),
        ("**/y/**/*.json", ["x/y/d.json", "x/y/x/g.json"]),
        ("**/x/**/*.json", ["x/b.json", "x/y/d.json", "x/y/x/g.json"]),
        ("**/d.json", ["x/y/d.json"]),
        ("x/**", ["x/b.json", "x/c.txt", "x/y/d.json", "x/y/x/g.json"]),
        (".*", [".hidden"]),
        (".h/*", [".h/e.json"]),
        ("A*", []),
        ("*/b.json", ["x/b.json"]),
    ],
)
def test_patterns_match_as_a_shell_does(folder, pattern, names):  # noqa: ARG001
    for name in ("a.json", "x/b.json", "x/c.txt", "x/y/d.json", ".hidden", ".h/e.json", "x/.i/f.json", "x/y/x/g.json"):
        write(name, "")

    found = [each.path for each in Pattern(pattern).find() if Path(each.path).is_file()]
    assert sorted(found) == names


def test_patterns_may_begin_at_the_root(folder):
    write("x/a.json", "")

    assert [each.path for each in Pattern(f"{folder}/*/a.json").find()] == [f"{folder}/x/a.json"]


def test_directories_that_lead_into_themselves_are_searched_once(folder):  # noqa: ARG001
    write("a/b.json", "")
    Path("a/loop").symlink_to("..")

    assert [each.path for each in Pattern("**/*.json").find()] == ["a/b.json"]


def test_a_tree_deeper_than_python_calls_is_searched(folder):
    deep = "/".join("d" * 600)
    write(f"{deep}/a.json", a_run(1))

    assert runs_of(read_once([f"{folder}/**"])) == [1]


def test_a_directory_that_cannot_be_searched_is_named(look, monkeypatch):
    write("x/a.json", a_run(1))
    write("y/b.json", a_run(2))
    scan = os.scandir

    def refuse(path):
        if path == "x":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)

    assert runs_of(look("*/*")) == [2]
    assert errors_of(look("*/*")) == ["x: cannot be searched: Permission denied"]


def test_of_a_long_path_the_end_is_shown():
    assert shown("/a" * 1000 + "/name.json").endswith("/name.json")


# ---- the component


class Told:
    """Takes up what a component says, and wakes who waits for it."""

    def __init__(self):
        self.evidence, self.errors, self.threads = [], [], set()
        self.new = asyncio.Event()

    def on_evidence(self, evidence):
        self.threads.add(threading.get_ident())
        self.evidence.append(evidence)
        self.new.set()

    def on_error(self, error):
        self.errors.append(error)
        self.new.set()

    async def wait(self):
        async with asyncio.timeout(10):
            await self.new.wait()
        self.new.clear()


@pytest.fixture
async def told():
    return Told()


@pytest.fixture
async def watching(folder, told):  # noqa: ARG001
    started = []

    async def start(*patterns, **settings):
        part = PayloadFiles(patterns, told.on_evidence, told.on_error, interval_seconds=0.01, **settings)
        started.append(part)
        await part.start()
        return part

    yield start
    for part in started:
        await part.shutdown()


async def test_what_is_there_is_known_when_it_has_started(watching, told):
    for number in range(3 * component.BATCH):
        write(f"{number}.json", a_run(number))
    await watching("*.json")

    assert sorted(runs_of(told.evidence)) == list(range(3 * component.BATCH))
    assert told.threads == {threading.get_ident()}, "callbacks belong to the loop"


async def test_what_comes_later_is_told(watching, told):
    await watching("*.json")
    write("a.json", a_run(1))
    while not told.evidence:
        await told.wait()

    assert runs_of(told.evidence) == [1]
    assert errors_of(told.errors) in ([], ["*.json: matches nothing"])


async def test_problems_are_told(watching, told):
    write("a.json", "broken")
    await watching("*.json")
    await told.wait()

    assert [error.path for error in told.errors] == ["a.json"]


async def test_a_callback_that_fails_costs_one_call(watching, told):
    take = told.on_evidence
    told.on_evidence = lambda each: take(each) if runs_of([each]) == [2] else 1 // 0
    for number in range(4):
        write(f"{number}.json", a_run(number))
    with structlog.testing.capture_logs() as logs:
        await watching("*.json")

    assert runs_of(told.evidence) == [2]
    assert [each["log_level"] for each in logs] == ["error"]


async def test_a_look_that_fails_is_followed_by_the_next(watching, told, monkeypatch):
    write("a.json", a_run(1))
    look = Watched.look
    monkeypatch.setattr(Watched, "look", lambda _: monkeypatch.setattr(Watched, "look", look) or 1 // 0)
    with structlog.testing.capture_logs() as logs:
        await watching("*.json")
        while not told.evidence:
            await told.wait()

    assert [each["log_level"] for each in logs] == ["error"]


async def test_the_loop_runs_while_a_file_is_read_and_start_does_not_wait_for_ever(watching, told, monkeypatch):
    monkeypatch.setattr(component, "START_PATIENCE", 0.01)
    go_on = threading.Event()
    read = files.read
    monkeypatch.setattr(files, "read", lambda *given: go_on.wait(10) and read(*given))
    write("a.json", a_run(1))
    await watching("*.json")
    assert told.evidence == []

    go_on.set()
    await told.wait()
    assert runs_of(told.evidence) == [1]


async def test_shutdown_ends_the_look_after_the_file_that_is_being_read(watching, told, monkeypatch):
    monkeypatch.setattr(component, "START_PATIENCE", 0.01)
    monkeypatch.setattr(component, "BATCH_SECONDS", 0)
    reading, go_on = threading.Event(), threading.Event()
    count = []

    def read(_, name):
        count.append(name)
        reading.set()
        go_on.wait(10)
        return iter(())

    monkeypatch.setattr(files, "read", read)
    for number in range(50):
        write(f"{number}.json", a_run(number))
    part = await watching("*.json")
    assert await asyncio.to_thread(reading.wait, 10)
    stopping = asyncio.create_task(part.shutdown())
    await asyncio.sleep(0)
    go_on.set()
    await stopping

    assert len(count) == 1
    assert told.evidence == []


async def test_shutdown_without_start_and_twice_does_nothing(told):
    part = PayloadFiles(["*"], told.on_evidence, told.on_error)
    await part.shutdown()
    await part.shutdown()


async def test_a_search_that_takes_long_is_followed_by_a_longer_pause(folder, told, clock, monkeypatch):  # noqa: ARG001
    pauses = asyncio.Queue()

    timeout = asyncio.timeout

    def at_once(seconds):
        pauses.put_nowait(seconds)
        return timeout(0)

    def look(self):
        clock.now += 0.5
        self.reading_seconds = 0.25
        yield None

    part = PayloadFiles(["*"], told.on_evidence, told.on_error, clock=clock)
    await part.start()
    assert part is not None
    await part.shutdown()
    monkeypatch.setattr(Watched, "look", look)
    monkeypatch.setattr(asyncio, "timeout", at_once)
    part = PayloadFiles(["*"], told.on_evidence, told.on_error, clock=clock)
    await part.start()
    await pauses.get()
    longest = await pauses.get()
    await part.shutdown()

    assert longest == component.SHARE * 0.25
