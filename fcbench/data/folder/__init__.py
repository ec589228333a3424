"""Images of your own with any targets: masks, depth, COCO-style JSON, class folders (on disk: --data-root)."""

from fcbench.data.folder.plugin import PLUGIN

__all__ = ["PLUGIN"]
