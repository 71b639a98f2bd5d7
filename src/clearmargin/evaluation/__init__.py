"""Figures from a predictions table, and what is chosen on it. Never imports torch.

Each module is imported by its own name; nothing is imported here, so that importing the part costs nothing. Where
to look:

    the table               predictions, foreign
    a figure                metrics, prevalence
    its interval            intervals, by way of bootstrap, weighted, units, delong
    what is chosen          choices, by way of calibration, operating_point, conformal, pooling, selection, logistic
    metrics.json            assemble, by way of figures, headline, classification_report
    the headline's blocks   reliability, selective, decision_curve, subgroups
    several runs            comparison, by way of pairing, significance, verdict; folds, optimism
    other data              drift

Drawing them is elsewhere (`report/`), and so is applying what was chosen to a new image (`decision.py`).
"""
