"""Videos for the demo, drawn and encoded here: an articulated figure acts in front of a still camera.

Read in this order: `performance` and `actions` (what each joint does), `skeleton` (joint angles -> joint positions), `camera` (positions ->
pixels), `scenes` (what stands behind), `draw` (capsules over it), `plan` (what is drawn for which video), `encode` (frames -> a file).
"""
