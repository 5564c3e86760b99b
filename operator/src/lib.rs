//! Drives objects to the declared state: policy status, drift, certificates.
