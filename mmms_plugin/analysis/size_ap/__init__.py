"""AP by object size: bins, matching, accumulation, bootstrap, groups of images, reports."""
