//! Bytes from and to the kernel: the only sockets, system calls and unsafe code.
