"""How requests leave: the exporters, and what stands between the pipeline and them."""

import os

# As in `enricher.receive`: grpc reads it once, on its first import, which may come through either package.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
