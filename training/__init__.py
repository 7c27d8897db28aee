"""Training: from ratings to a bundle."""

import logging
import os

# Read by TensorFlow and Keras when they are imported, so set before any module here does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# The towers' batches are too small for a second thread to pay.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# Each fit traces its own graph, as it must; TensorFlow warns of it all the same.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
