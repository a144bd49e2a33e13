//! The one runner: command line, typed configs, ablations, reports.
