"""From image files to float32 arrays: decoding, preprocessing, augmentation."""
