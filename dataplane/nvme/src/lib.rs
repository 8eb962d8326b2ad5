//! roadstead-nvme
