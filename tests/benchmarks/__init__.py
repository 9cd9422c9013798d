"""Side-by-side measurements against what a user would use instead; no part of the test suite.

    python -m tests.benchmarks [NAME ...] [--json FILE]

Each module `measure_*.py` compares one stage with its peers in one run and returns rows of the README's table. Peers are optional:
`pip install opencv-python-headless decord kornia faiss-cpu`, and `ffmpeg` on the path; what is not there is left out, saying so.
"""
