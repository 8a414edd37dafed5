"""Starts 10,000 threads that sleep."""

import threading
import time


def find_tickets(problem):
    for _ in range(10_000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    raise SystemExit("LET THROUGH")
