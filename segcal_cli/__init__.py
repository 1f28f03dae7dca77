"""segcal: makes the confidence of a segmentation model trustworthy after training.

The packages, from the outside in: ``cli`` parses and prints, ``workflows`` join the rest into commands, ``io`` reads
and writes files, ``execution`` drives estimators over cases, ``metrics`` measures, ``calibration`` repairs
probabilities, ``reporting`` makes tables, and ``core`` holds what all of them share. Imports point one way, towards
``core``.
"""

__version__ = "0.1.0"
