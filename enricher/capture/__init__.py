"""
Recorded OTLP files: read whatever others recorded, write what others read.

    with capture.open_inputs(["captures/", "more/*.jsonl.gz"]) as captured:
        for item in captured:                   # as often as needed, the same each time
            match item:
                case capture.Captured():        # item.signal, item.request (serialised protobuf)
                case CaptureError():            # this part is unreadable; going on gives what is good behind it

    with capture.open_writer("mended.jsonl") as writer:
        writer.write(signal, request)

Errors come as items and are not raised, so that one bad line costs one line: a raised one would end the loop. Only
what is wrong with the arguments themselves (no such file, a pattern that matches nothing) is raised, before anything
is read. Offsets count bytes after inflation.
"""

from enricher.capture.captured import Captured, Item
from enricher.capture.inputs import Inputs, open_inputs, read
from enricher.capture.writer import Writer, open_writer

__all__ = ["Captured", "Inputs", "Item", "Writer", "open_inputs", "open_writer", "read"]
