"""What holds for every test: one thread for each library, no network, hypothesis without deadlines.

Several test processes share the machine. Threads of one that wait for a core spin and take it from the other: with
one thread each the suite costs a third of the CPU time and no test's outcome depends on what runs beside it. A test
whose subject is threads sets their number itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy or torch
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
