"""Timing that a shared machine cannot spoil: interleaved rounds, the best of each, ratios within one run."""

import gc
import time

# Between two libraries' turns: threads of a pool spin after its last loop, on cores that the other library is about to use.
# OpenMP's do so for 9 to 12 ms here.
PAUSE = 0.02


def best_of(functions, rounds=9, seconds=0.02):
    """Best seconds a call of each function.

    functions : dict of name -> callable without arguments, or None for a peer that is not there
    Each round times every function once, one after the other, so that drift hits all alike.
    """
    present = {name: function for name, function in functions.items() if function is not None}
    counts = {name: calls_for(function, seconds) for name, function in present.items()}
    best = dict.fromkeys(present, float("inf"))
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, function in present.items():
                time.sleep(PAUSE)
                best[name] = min(best[name], seconds_a_call(function, counts[name]))
    finally:
        if gc_was_on:
            gc.enable()
    return best


def seconds_a_call(function, count):
    repeat = range(count)
    start = time.perf_counter()
    for _ in repeat:
        function()
    return (time.perf_counter() - start) / count


def calls_for(function, seconds):
    """How many calls take about `seconds`."""
    function()
    count = 1
    while True:
        taken = seconds_a_call(function, count) * count
        if taken > seconds / 4:
            return max(1, int(count * seconds / max(taken, 1e-9)))
        count *= 4


def machine():
    """One line about where this runs."""
    import os
    import platform

    with open("/proc/cpuinfo") as file:
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            platform.machine(),
        )
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores usable, Python {platform.python_version()}"
    )
