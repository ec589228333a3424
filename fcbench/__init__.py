"""fcbench: rate-task-accuracy curves of coded vision features, and what an encoder's specialization costs in bits."""

__version__ = "0.2.0"
