"""What every package shares: errors, class tables, grids, volumes, cases, artifacts, the estimator shape, one rank
rule.
"""
