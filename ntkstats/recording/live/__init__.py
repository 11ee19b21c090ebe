"""What is behind a `Recorder` while a model trains.

A visit of the loop goes through `_conductor` (is something due?), `_session` (what does the run
know?) and `_meter` (measure) to `_outbox` (on its way) and `_journal` (written).
"""
