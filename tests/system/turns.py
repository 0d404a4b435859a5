"""What takes long takes turns by the day, so that the whole keeps within its time on a machine that has built nothing yet. RK_TEST_ALL=1 runs everything.

usage: turns.py NAME     exits with 0 if it is due today
"""
import datetime
import os
import sys

ALL = bool(os.environ.get("RK_TEST_ALL"))
TODAY = datetime.date.today().toordinal()
# Dear to build, cheap to run: each stands in the cache once it was built, and is tested every day from then on.
DEAR = ("oracle", "helm", "operator", "project")


def of_the_day(names):
    names = list(names)
    return names[TODAY % len(names)]


def is_due(name, names):
    """Whether it is the day of this one among all of them."""
    return ALL or of_the_day(names) == name


def is_day(every):
    """Whether it is the day of what runs once in so many days."""
    return ALL or TODAY % every == 0


if __name__ == "__main__":
    sys.exit(not is_due(sys.argv[1], DEAR))
