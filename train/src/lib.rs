//! The learner: strategy, optimiser, schedule, freezing, evaluation, checkpoints.
