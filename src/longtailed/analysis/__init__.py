"""What is learnt from runs and data: benchmarks, diagnoses, experiments."""
