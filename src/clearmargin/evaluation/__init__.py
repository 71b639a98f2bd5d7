"""Figures from a predictions table: metrics, patient bootstrap, calibration, operating points. Never imports torch.

Each module is imported by its own name; nothing is imported here, so that importing the part costs nothing.
`predictions` reads and checks the table, `metrics` holds the pure figures, `bootstrap` their intervals,
`calibration` the temperature and the reliability bins, `operating_point` the threshold, and `evaluation`
puts them together as metrics.json. Drawing them is elsewhere (`report/`), and so is applying a temperature
or a threshold to a new image (`decision.py`).
"""
