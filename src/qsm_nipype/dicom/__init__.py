"""From a scanner's DICOM files to a BIDS dataset: `qsm-nipype convert`."""
