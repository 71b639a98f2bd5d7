"""`sweep`: settings searched for by patient, the winner retrained, and test looked at once.

`job.py` is the whole from top to bottom. A trial is a function of (store, split, settings, fold) in `trial.py`; who
calls it is in `work.py`; Optuna is in `study.py` alone.
"""
