//! Every setting once.
