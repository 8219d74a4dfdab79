"""What a run leaves behind: its manifest, events and samples while it lives; its summary and report when it ends.

recorder.py writes, read.py reads back, summary.py counts, report.py draws. The files are those of DESIGN section 9; the
summary and the report come from the files alone, so a run that was killed can be reported on too.
"""
