"""COCO: masks of 80 classes, objects, persons' keypoints, captions (on disk: --data-root; test = val).

A split supports the tasks whose annotation files are there. If there is only one official split (annotations and
images), a fifth of its images, by the hash of their names, is the test split, and the revision begins with
``hash-split``.

Masks are made from the instances: background and 80 classes. Images show many classes, so there is no classification.

Reference: Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014.
"""

from fcbench.data.shared.coco import CocoPlugin

PLUGIN = CocoPlugin()
