"""For all tests: one thread for torch, here and in the servers that tests start. The tensors are small."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
