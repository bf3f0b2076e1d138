"""Writers of a run's metrics next to metrics.jsonl: TensorBoard, Weights & Biases, MLflow, or a
class of the user's."""
