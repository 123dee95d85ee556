"""Damage files of every format that submillion reads, and watch that nothing ends but well or in a typed error."""

import os

# Read when numpy, torch and matplotlib are imported. A worker is forked, and threads would not come along.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="agg", NO_COLOR="1", COLUMNS="100")
