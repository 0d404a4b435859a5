"""Stock programs against a cluster of their own (`cargo xtask lab`)."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
