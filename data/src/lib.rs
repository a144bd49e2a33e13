//! Video files to host batches.
